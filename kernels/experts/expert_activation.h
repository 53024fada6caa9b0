#ifndef TESSERA_KERNELS_EXPERTS_EXPERT_ACTIVATION_H_
#define TESSERA_KERNELS_EXPERTS_EXPERT_ACTIVATION_H_

#include "kernels/pointwise/activation.h"

namespace tessera {

enum class Gating : uint8_t { kPlain, kGated };

// The hidden function of experts on their rows (kernels/experts/routing.h), f(x), or gated f(gate)
// up, which reads [gate | up], twice its width F. Each row is multiplied by its routing weight
// here, before the last product of the expert rather than after it, so that the weight's derivative
// needs no output of that product.

enum class RowWeights : uint8_t { kGiven, kOnes };

// y[r] = weight[slot_of[r]] f(x[r]) for r < *used; the other rows are left alone.
template <class T>
struct ExpertActivationArgs {
  static constexpr char kName[] = "expert_activation";
  Activation f;
  Gating gating;
  const T* x;  // [rows, F], gated [rows, 2F]
  int64_t x_stride;
  RowWeights weights;
  const float* weight;     // [rows], by slot; not read if kOnes
  const int32_t* slot_of;  // [rows]
  const int32_t* used;     // rows that belong to an expert
  T* y;                    // [rows,F]
  int64_t y_stride;
  int64_t rows, F;
  // As if every row were used.
  Cost cost() const {
    const int64_t in = gating == Gating::kGated ? 2 * F : F;
    const int64_t given = weights == RowWeights::kGiven ? 1 : 0;
    return {.flops = rows * F * (FlopsOf(f) + (gating == Gating::kGated ? 1 : 0) + given),
            .bytes = rows * (in + F) * int64_t{sizeof(T)} + 8 * rows * given};
  }
};

// dx, and dweight[s] = <dy[r], f(x[r])> for s = slot_of[r]; the dweight of a row in no use is 0.
template <class T>
struct ExpertActivationGradArgs {
  static constexpr char kName[] = "expert_activation_grad";
  Activation f;
  Gating gating;
  const T* x;  // [rows, F], gated [rows, 2F]
  int64_t x_stride;
  const T* dy;  // [rows,F]
  int64_t dy_stride;
  RowWeights weights;
  const float* weight;     // [rows], by slot; not read if kOnes
  const int32_t* slot_of;  // [rows]
  const int32_t* used;
  T* dx;  // as x, or null
  int64_t dx_stride;
  Grad dx_mode;
  float* dweight;  // [rows], by slot, or null
  Grad dweight_mode;
  int64_t rows, F;
  Cost cost() const {
    const int64_t in = gating == Gating::kGated ? 2 * F : F;
    const int64_t given = weights == RowWeights::kGiven ? 1 : 0;
    const int64_t passes = dx_mode == Grad::kAccumulate ? 3 : 2;
    return {.flops = rows * F * (2 * FlopsOf(f) + (gating == Gating::kGated ? 3 : 1) + 3 * given),
            .bytes = rows * (in * passes + F) * int64_t{sizeof(T)} + 12 * rows * given};
  }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_EXPERTS_EXPERT_ACTIVATION_H_
