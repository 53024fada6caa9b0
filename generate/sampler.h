#ifndef TESSERA_GENERATE_SAMPLER_H_
#define TESSERA_GENERATE_SAMPLER_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"

namespace tessera {

// How the next token is drawn from the logits. Filters apply in the order of the fields.
struct Sampling {
  double temperature = 0.8;  // 0: the most likely token
  int64_t top_k = 0;         // keep the k most likely; 0 keeps all
  double top_p = 1;  // then the fewest that hold this much probability (Holtzman et al. 2020)
  double min_p = 0;  // then those at least this likely relative to the best (Nguyen et al. 2024)
  uint64_t seed = 1;

  absl::Status Check() const;  // a person's mistake, named
};

// Draws token number `index` of a generation: a pure function of logits, settings and index.
int32_t Sample(std::span<const float> logits, const Sampling& sampling, uint64_t index);

}  // namespace tessera

#endif  // TESSERA_GENERATE_SAMPLER_H_
