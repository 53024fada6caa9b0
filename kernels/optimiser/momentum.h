#ifndef TESSERA_KERNELS_OPTIMISER_MOMENTUM_H_
#define TESSERA_KERNELS_OPTIMISER_MOMENTUM_H_

#include "kernels/optimiser/step.h"

// Optimisers with one state m, over all parameters in one pass; g is scaled by the clipping factor.
// They do nothing once the outcome is halted.

namespace tessera {

// Lion (Chen et al. 2023, arXiv:2302.06675, algorithm 2):
//   p = p - lr (sign(b1 m + (1 - b1) g) + decay p),   m = b2 m + (1 - b2) g.
struct LionArgs {
  static constexpr char kName[] = "lion";
  const OptimizerTensor* tensors;  // the list is the host's
  int64_t count;
  float beta1, beta2;
  const OptimizerStep* step;
  const StepOutcome* outcome;
  Cost cost() const {
    const int64_t n = OptimizerElements(tensors, count);
    return {.flops = 10 * n, .bytes = 20 * n};
  }
};

// Stochastic gradient descent with momentum (Sutskever et al. 2013, section 2, classical):
//   m = momentum m + g,   p = p - lr (m + decay p).
struct SgdArgs {
  static constexpr char kName[] = "sgd";
  const OptimizerTensor* tensors;  // the list is the host's
  int64_t count;
  float momentum;
  const OptimizerStep* step;
  const StepOutcome* outcome;
  Cost cost() const {
    const int64_t n = OptimizerElements(tensors, count);
    return {.flops = 7 * n, .bytes = 20 * n};
  }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_OPTIMISER_MOMENTUM_H_
