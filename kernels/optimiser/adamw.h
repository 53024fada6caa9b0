#ifndef TESSERA_KERNELS_OPTIMISER_ADAMW_H_
#define TESSERA_KERNELS_OPTIMISER_ADAMW_H_

#include "kernels/optimiser/step.h"

namespace tessera {

// AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2) over all parameters in one pass:
//   m = b1 m + (1 - b1) g,   v = b2 v + (1 - b2) g^2,   g scaled by the clipping factor,
//   p = p - lr (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + decay p),
// with m the first state and v the second. Does nothing once the outcome is halted.
struct AdamWArgs {
  static constexpr char kName[] = "adamw";
  const OptimizerTensor* tensors;  // the list is the host's
  int64_t count;
  float beta1, beta2, epsilon;
  const OptimizerStep* step;
  const StepOutcome* outcome;
  Cost cost() const {
    const int64_t n = OptimizerElements(tensors, count);
    return {.flops = 15 * n, .bytes = 28 * n};
  }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_OPTIMISER_ADAMW_H_
