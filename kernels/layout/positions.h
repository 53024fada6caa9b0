#ifndef TESSERA_KERNELS_LAYOUT_POSITIONS_H_
#define TESSERA_KERNELS_LAYOUT_POSITIONS_H_

#include "kernels/view.h"

namespace tessera {

// y[b,j] = x[b, first + j step] / divisor, rounded down: where the tokens of a shorter sequence
// stand, in groups of `divisor` tokens. Without x, token i stands at i.
struct PositionsArgs {
  static constexpr char kName[] = "positions";
  View<const int32_t> x;  // [B,T], >= 0, or none
  View<int32_t> y;        // [B,count]
  int64_t B, T, count, first, step, divisor;
  constexpr int32_t At(int64_t b, int64_t j) const {
    const int64_t i = first + j * step;
    return (x ? x.Row(b)[i] : static_cast<int32_t>(i)) / static_cast<int32_t>(divisor);
  }
  template <class F>
  void Tensors(F&& f) {
    f.Index("x", x, {B, T}, kOptional);
    f.Out("y", y, {B, count});
  }
  Cost cost() const { return {.bytes = 8 * B * count}; }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_LAYOUT_POSITIONS_H_
