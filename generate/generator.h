#ifndef TESSERA_GENERATE_GENERATOR_H_
#define TESSERA_GENERATE_GENERATOR_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "arch/model.h"
#include "generate/sampler.h"

namespace tessera {

struct Generation {
  std::vector<int32_t> tokens;  // the new ones
  double prefill_seconds = 0, decode_seconds = 0;
  int64_t prompt_tokens = 0;
  int64_t decoded_tokens =
      0;  // by steps of one token: all new ones but the first, which the prefill gave
  int64_t state_bytes = 0;  // of the sequence at the end
};

// Reads the prompt in one pass, then one token a call through the states; on a GPU each call is a
// graph, the one before it with other addresses and sizes. The model is in the device's memory.
// on_token is called with
// each token as it comes; it returns false to stop. The prompt is not empty and its ids are in the
// vocabulary.
Generation Generate(const Model& model, Device device, std::span<const int32_t> prompt,
                    int64_t tokens, const Sampling& sampling, DType compute,
                    const std::function<bool(int32_t)>& on_token);

}  // namespace tessera

#endif  // TESSERA_GENERATE_GENERATOR_H_
