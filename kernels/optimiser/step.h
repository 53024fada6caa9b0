#ifndef TESSERA_KERNELS_OPTIMISER_STEP_H_
#define TESSERA_KERNELS_OPTIMISER_STEP_H_

#include <cstdint>

#include "kernels/cost.h"

// What the steps of all optimisers share: the tensors that they move, the numbers that change from
// step to step, and what a step finds before it moves anything.

namespace tessera {

struct OptimizerTensor {
  float *parameter, *gradient;        // [size]
  float *first_state, *second_state;  // [size], or null where the optimiser has none
  int64_t size;
  float weight_decay;
  float lr_scale = 1;  // times the step's learning rate
};

// Tensors are worked on in blocks of this many elements.
inline constexpr int64_t kOptimizerBlock = 16384;

inline int64_t OptimizerBlocks(int64_t size) {
  return (size + kOptimizerBlock - 1) / kOptimizerBlock;
}
inline int64_t OptimizerBlocks(const OptimizerTensor* tensors, int64_t count) {
  int64_t blocks = 0;
  for (int64_t i = 0; i < count; ++i) blocks += OptimizerBlocks(tensors[i].size);
  return blocks;
}
inline int64_t OptimizerElements(const OptimizerTensor* tensors, int64_t count) {
  int64_t n = 0;
  for (int64_t i = 0; i < count; ++i) n += tensors[i].size;
  return n;
}

// What changes from step to step, in the device's memory, so that a step can be recorded once and
// done again.
struct OptimizerStep {
  float lr;
  float clip;               // the gradient's norm is brought down to it; 0: left as it is
  float first_correction;   // 1 / (1 - beta1^t), of optimisers with moments that start at 0
  float second_correction;  // 1 / (1 - beta2^t)
};
// What a step found, in the device's memory.
struct StepOutcome {
  double loss, grad_norm;
  float gradient_scale;  // what the norm is brought down by
  int32_t halted;        // not 0: the loss or the norm was not finite, in this step or before
};

// partial[block] = the sum of squares of one block of gradients, in double.
struct SquareSumArgs {
  static constexpr char kName[] = "square_sum";
  const OptimizerTensor* tensors;  // the list is the host's
  int64_t count;
  double* partial;  // [OptimizerBlocks(tensors, count)]
  Cost cost() const {
    const int64_t n = OptimizerElements(tensors, count);
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

#endif  // TESSERA_KERNELS_OPTIMISER_STEP_H_
