#ifndef TESSERA_KERNELS_LAYOUT_POSITIONS_H_
#define TESSERA_KERNELS_LAYOUT_POSITIONS_H_

#include "kernels/view.h"

namespace tessera {

// y[b,j] = x[b, first + j step] / divisor, rounded down: where the tokens of a shorter sequence
// stand, in groups of `divisor` tokens.
struct PositionsArgs {
  static constexpr char kName[] = "positions";
  View<const int32_t> x;  // [B,T], >= 0
  View<int32_t> y;        // [B,count]
  int64_t B, T, count, first, step, divisor;
  template <class F>
  void Tensors(F&& f) {
    f.Index("x", x, {B, T});
    f.Out("y", y, {B, count});
  }
  Cost cost() const { return {.bytes = 8 * B * count}; }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_LAYOUT_POSITIONS_H_
