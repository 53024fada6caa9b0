#ifndef TESSERA_OPS_ROPE_SCALING_H_
#define TESSERA_OPS_ROPE_SCALING_H_

#include <cstdint>
#include <vector>

#include "kernels/attention/rope.h"

// How a rotary embedding is stretched to contexts longer than it was trained for. Everything is
// computed in double, once, when a block is built.

namespace tessera {

enum class RopeScalingType : uint8_t {
  kNone,
  kLinear,  // position interpolation (Chen et al. 2023, arXiv:2306.15595, eq. 4)
  kNtk,     // a larger base (Peng et al. 2023, arXiv:2309.00071, eq. 16: "NTK-aware")
  kYarn,    // (Peng et al. 2023, section 3.2 and 3.4)
  kLlama3,  // (Llama 3.1's own: high frequencies kept, low ones divided, smooth between)
};

struct RopeScaling {
  RopeScalingType type = RopeScalingType::kNone;
  double factor = 1;               // new length / original length, >= 1
  double original_length_tok = 0;  // yarn and llama3: the length trained for
  // yarn: pairs that turn more than beta_fast times within the original length are kept, those
  // below beta_slow are divided by the factor; `truncate` rounds the bounds outwards to whole
  // pairs.
  double beta_fast = 32, beta_slow = 1;
  bool truncate = true;
  double attention_factor = 0;  // yarn; 0: 0.1 ln(factor) + 1
  // llama3: the same bounds, in turns within the original length.
  double low_freq_factor = 1, high_freq_factor = 4;
};

struct RopeFrequencies {
  std::vector<double> radians;  // [R/2], the angle that a token adds to pair i
  double attention_factor = 1;  // multiplies cos and sin, so the logits by its square
};

// theta_i = base^(-2i/R), scaled. R is even and positive, base > 1.
RopeFrequencies ScaledRopeFrequencies(const RopeScaling& scaling, double base, int64_t R);

// The same for the kernel. R <= 2 * RopeRotation::kMaxPairs.
RopeRotation MakeRotation(const RopeFrequencies& frequencies, RopePairing pairing);

}  // namespace tessera

#endif  // TESSERA_OPS_ROPE_SCALING_H_
