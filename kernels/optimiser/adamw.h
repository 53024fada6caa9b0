#ifndef TESSERA_KERNELS_OPTIMISER_ADAMW_H_
#define TESSERA_KERNELS_OPTIMISER_ADAMW_H_

#include "kernels/cost.h"

// AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2) over all parameters in one pass:
//   m = b1 m + (1 - b1) g,   v = b2 v + (1 - b2) g^2,   g scaled by the clipping factor,
//   p = p - lr (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + decay p).

namespace tessera {

struct AdamWTensor {
  float *parameter, *gradient, *first_moment, *second_moment;  // [size]
  int64_t size;
  float weight_decay;
};

// Tensors are worked on in blocks of this many elements.
inline constexpr int64_t kOptimizerBlock = 16384;

inline int64_t OptimizerBlocks(int64_t size) {
  return (size + kOptimizerBlock - 1) / kOptimizerBlock;
}
inline int64_t OptimizerBlocks(const AdamWTensor* tensors, int64_t count) {
  int64_t blocks = 0;
  for (int64_t i = 0; i < count; ++i) blocks += OptimizerBlocks(tensors[i].size);
  return blocks;
}

// What changes from step to step, in the device's memory, so that a step can be recorded once and
// done again.
struct OptimizerStep {
  float lr;
  float clip;               // the gradient's norm is brought down to it; 0: left as it is
  float first_correction;   // 1 / (1 - beta1^t)
  float second_correction;  // 1 / (1 - beta2^t)
};
// What a step found, in the device's memory.
struct StepOutcome {
  double loss, grad_norm;
  float gradient_scale;  // what the norm is brought down by
  int32_t halted;        // not 0: the loss or the norm was not finite, in this step or before
};

// Does nothing once the outcome is halted.
struct AdamWArgs {
  static constexpr char kName[] = "adamw";
  const AdamWTensor* tensors;  // the list is the host's
  int64_t count;
  float beta1, beta2, epsilon;
  const OptimizerStep* step;
  const StepOutcome* outcome;
  Cost cost() const {
    int64_t n = 0;
    for (int64_t i = 0; i < count; ++i) n += tensors[i].size;
    return {.flops = 15 * n, .bytes = 28 * n};
  }
};

// partial[block] = the sum of squares of one block of gradients, in double.
struct SquareSumArgs {
  static constexpr char kName[] = "square_sum";
  const AdamWTensor* tensors;
  int64_t count;
  double* partial;  // [OptimizerBlocks(tensors, count)]
  Cost cost() const {
    int64_t n = 0;
    for (int64_t i = 0; i < count; ++i) n += tensors[i].size;
    return {.flops = 2 * n, .bytes = 4 * n};
  }
};

// loss = sum of share[i] loss[i], grad_norm = sqrt(sum of partial), each summed in one order, and
// what follows from them. `halted` stays set.
struct StepOutcomeArgs {
  static constexpr char kName[] = "step_outcome";
  const double* partial;  // [blocks]
  int64_t blocks;
  const float *loss, *share;  // [count]: of each micro-batch
  int64_t count;
  const OptimizerStep* step;
  StepOutcome* outcome;
  Cost cost() const { return {.flops = blocks + 2 * count, .bytes = 8 * (blocks + count)}; }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_OPTIMISER_ADAMW_H_
