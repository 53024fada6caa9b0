#ifndef TESSERA_KERNELS_LAYOUT_PERMUTE_H_
#define TESSERA_KERNELS_LAYOUT_PERMUTE_H_

#include "core/dtype.h"
#include "kernels/cost.h"

// Tokens into the row order of a routing (kernels/experts/routing.h: slots, rows, drops) and back.
// `used` points at the number of rows that belong to an expert, offsets[E]; the other rows are
// neither read nor written. No atomics: rows gather from tokens, tokens gather from rows.

namespace tessera {

// y[r] = x[token_of[r]].
template <class T>
struct PermuteArgs {
  static constexpr char kName[] = "permute";
  const T* x;  // [R,D]
  int64_t x_stride;
  const int32_t* token_of;  // [rows]
  const int32_t* used;
  T* y;  // [rows,D]
  int64_t y_stride;
  int64_t R, rows, D;
  // As if every row were used.
  Cost cost() const { return {.bytes = (R + rows) * D * int64_t{sizeof(T)} + 4 * rows}; }
};

enum class CombineWeights : uint8_t { kGiven, kOnes };

// y[t] = sum_j w[t,j] x[row_of[t,j]], or added to y. Dropped slots add nothing. With w = 1 it is
// also the vjp of Permute.
template <class T>
struct CombineArgs {
  static constexpr char kName[] = "combine";
  const T* x;  // [R k, D]
  int64_t x_stride;
  CombineWeights weights;
  const float* weight;    // [R,k]; not read if kOnes
  const int32_t* row_of;  // [R,k]
  T* y;                   // [R,D]
  int64_t y_stride;
  Grad mode;
  int64_t R, k, D;
  Cost cost() const {
    const int64_t passes = mode == Grad::kAccumulate ? 2 : 1;
    return {.flops = R * k * D * (weights == CombineWeights::kGiven ? 2 : 1),
            .bytes = (R * k + R * passes) * D * int64_t{sizeof(T)} + 8 * R * k};
  }
};

// The vjp of the weighted Combine: dx[r] = w[s] dy[token_of[r]], dw[s] = <dy[token_of[r]], x[r]>
// for s = slot_of[r]; dw of a dropped slot is 0.
template <class T>
struct CombineGradArgs {
  static constexpr char kName[] = "combine_grad";
  const T* x;  // [rows,D]
  int64_t x_stride;
  const float* weight;      // [rows], by slot
  const int32_t* slot_of;   // [rows]
  const int32_t* token_of;  // [rows]
  const int32_t* used;
  const T* dy;  // [R,D]
  int64_t dy_stride;
  T* dx;  // [rows,D] or null
  int64_t dx_stride;
  Grad dx_mode;
  float* dweight;  // [rows], by slot, or null
  Grad dweight_mode;
  int64_t R, rows, D;
  Cost cost() const {
    const int64_t passes = (dx_mode == Grad::kAccumulate ? 2 : 1);
    return {.flops = rows * D * 3,
            .bytes = (R + rows * (1 + passes)) * D * int64_t{sizeof(T)} + 16 * rows};
  }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_LAYOUT_PERMUTE_H_
