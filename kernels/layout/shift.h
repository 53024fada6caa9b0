#ifndef TESSERA_KERNELS_LAYOUT_SHIFT_H_
#define TESSERA_KERNELS_LAYOUT_SHIFT_H_

#include "core/dtype.h"
#include "kernels/view.h"

namespace tessera {

// y_t = x_{t-n}, 0 where that token stands before t's document (start: Context::start), as RWKV's
// token shift has it (Peng et al. 2023, arXiv:2305.13048, section 3.1.1, n = 1). Tokens before the
// chunk are rows of the state, the last n inputs, oldest first, with 0 for what no later token can
// reach.
template <class T_>
struct ShiftArgs {
  static constexpr char kName[] = "shift", kGradName[] = "shift_grad";
  View<T_> x;                 // [B,T,C]
  View<float> state;          // [B,n,C], or none: zero
  View<const int32_t> start;  // [B,T], or none: no document begins in this chunk
  View<T_> y;                 // [B,T,C]
  View<float> last_state;     // [B,n,C], or none: not wanted
  int64_t B, T, C, n;         // n >= 1
  template <class F>
  void Tensors(F&& f) {
    f.In("x", x, {B, T, C}, kUnread);
    f.In("state", state, {B, n, C}, kOptional | kDense | kUnread);
    f.Index("start", start, {B, T}, kOptional);
    f.Out("y", y, {B, T, C});
    f.Out("last_state", last_state, {B, n, C}, kOptional | kDense);
  }
  // Whether the token at `to` of sequence b sees the one at `from` <= to, negative before the
  // chunk.
  constexpr bool Sees(int64_t b, int64_t to, int64_t from) const {
    return !start || start.data[b * T + to] <= from;
  }
  Cost cost() const {
    return {.bytes = B * C * (2 * T * static_cast<int64_t>(sizeof(T_)) + 8 * n)};
  }
  Cost grad_cost() const { return cost(); }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_LAYOUT_SHIFT_H_
