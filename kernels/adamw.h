#ifndef TESSERA_KERNELS_ADAMW_H_
#define TESSERA_KERNELS_ADAMW_H_

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

inline int64_t OptimizerBlocks(const AdamWTensor* tensors, int64_t count) {
  int64_t blocks = 0;
  for (int64_t i = 0; i < count; ++i)
    blocks += (tensors[i].size + kOptimizerBlock - 1) / kOptimizerBlock;
  return blocks;
}

struct AdamWArgs {
  static constexpr char kName[] = "adamw";
  const AdamWTensor* tensors;
  int64_t count;
  float lr, beta1, beta2, epsilon;
  float gradient_scale;     // of the gradient, before all else: clipping
  float first_correction;   // 1 / (1 - beta1^t)
  float second_correction;  // 1 / (1 - beta2^t)
  Cost cost() const {
    int64_t n = 0;
    for (int64_t i = 0; i < count; ++i) n += tensors[i].size;
    return {.flops = 15 * n, .bytes = 28 * n};
  }
};

// partial[block] = the sum of squares of one block of gradients, in double; the caller adds them in
// order.
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

}  // namespace tessera

#endif  // TESSERA_KERNELS_ADAMW_H_
