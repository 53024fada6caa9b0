#ifndef TESSERA_GENERATE_GENERATOR_H_
#define TESSERA_GENERATE_GENERATOR_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "arch/model.h"
#include "generate/sampler.h"
#include "kernels/device/memory.h"

namespace tessera {

struct Generation {
  std::vector<int32_t> tokens;  // the new ones
  double prefill_seconds = 0, decode_seconds = 0;
  int64_t prompt_tokens = 0;
  // By steps of one token: all new ones but the first, which the prefill gave.
  int64_t decoded_tokens = 0;
  int64_t state_bytes = 0;  // of the sequence at the end
};

// The memory of a generation, known before it starts. The prompt's pass, and the caches that it
// leaves, have one arena. Steps take two in turns: the states that a step leaves are replaced in
// the next one, so an arena is empty when its turn comes, and what a step needs depends on its
// place alone. Of that only workspaces depend on the place: they grow with it and are given back
// before anything else is asked for, so that the last place needs the most. It is tried, and each
// doubling before it.
struct GenerationMemory {
  PassMemory prefill;
  PassMemory step;  // of each of the two
  int64_t bytes() const { return prefill.bytes + 2 * step.bytes; }
};
GenerationMemory MeasureGeneration(const Model& model, int64_t prompt_tokens, int64_t tokens,
                                   DType compute);

// Reads the prompt in one pass, then one token a call through the states; on a GPU each call is a
// graph, the one before it with other sizes. The model is in the device's memory. on_token is
// called with each token as it comes; it returns false to stop. Errors: an empty prompt, an id that
// is not in the vocabulary, a count below 0 or beyond what positions can count, settings out of
// range, logits that are not finite.
absl::StatusOr<Generation> Generate(const Model& model, Device device,
                                    std::span<const int32_t> prompt, int64_t tokens,
                                    const Sampling& sampling, DType compute,
                                    const std::function<bool(int32_t)>& on_token);

}  // namespace tessera

#endif  // TESSERA_GENERATE_GENERATOR_H_
