#ifndef TESSERA_KERNELS_ROWS_CROSS_ENTROPY_H_
#define TESSERA_KERNELS_ROWS_CROSS_ENTROPY_H_

#include "core/dtype.h"
#include "kernels/cost.h"

// The cross-entropy of a block of logits, and its gradient in their place:
//   nll[r] = log(sum_v exp(l[r,v])) - l[r,target],   dl = (softmax(l) - onehot(target)) * weight.
// The head works through its rows block by block with these (ops/head_loss.cc), so that the logits
// of a whole batch never exist.

namespace tessera {

// weight[0] = 1 / the number of targets that count (those >= 0), or 0 if there is none.
struct TargetWeightArgs {
  static constexpr char kName[] = "target_weight";
  const int32_t* target;  // [rows]
  float* weight;          // [1]
  int64_t rows;
  Cost cost() const { return {.flops = 0, .bytes = 4 * rows}; }
};

struct CrossEntropyArgs {
  static constexpr char kName[] = "cross_entropy";
  float* logits;          // [rows, V]: read, and where `gradient`, replaced by their gradient
  const int32_t* target;  // [rows]; negative: does not count; >= V: its nll is NaN
  float* nll;             // [rows]; 0 where it does not count
  const float* weight;    // [1]
  bool gradient;
  int64_t rows, V;
  Cost cost() const {
    return {.flops = rows * V * (gradient ? 5 : 3), .bytes = rows * V * (gradient ? 8 : 4)};
  }
};

// loss[0] = weight[0] * the sum of nll, by a fixed tree.
struct LossSumArgs {
  static constexpr char kName[] = "loss_sum";
  const float* nll;     // [rows]
  const float* weight;  // [1]
  float* loss;          // [1]
  int64_t rows;
  Cost cost() const { return {.flops = rows, .bytes = 4 * rows}; }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_ROWS_CROSS_ENTROPY_H_
