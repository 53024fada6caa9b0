#ifndef TESSERA_GENERATE_SAMPLER_H_
#define TESSERA_GENERATE_SAMPLER_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

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

// Draws tokens in a time that is linear in the vocabulary: nothing is sorted. Keeps its buffers
// from token to token.
class Sampler {
 public:
  // The settings have been checked.
  explicit Sampler(const Sampling& sampling) : sampling_(sampling) {}

  // Token number `index` of a generation: a pure function of logits, settings and index. Of equal
  // logits the lesser ids count as the more likely. Error: logits that are NaN or infinite, or none
  // at all; one of minus infinity is a token that is never drawn.
  absl::StatusOr<int32_t> Draw(std::span<const float> logits, uint64_t index);

 private:
  struct Candidate {
    double weight;  // probability / that of the best
    float logit;
    int32_t id;
    bool operator<(const Candidate& o) const {  // the more likely stand first
      return logit != o.logit ? logit > o.logit : id < o.id;
    }
  };
  // How many of the most likely candidates hold `weight` in the sense of `holds(sum, weight)`;
  // these are moved to the front, the last of them at the end.
  template <class Holds>
  static size_t Fewest(std::span<Candidate> candidates, double weight, Holds holds);

  Sampling sampling_;
  std::vector<Candidate> candidates_;
};

}  // namespace tessera

#endif  // TESSERA_GENERATE_SAMPLER_H_
