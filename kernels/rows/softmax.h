#ifndef TESSERA_KERNELS_ROWS_SOFTMAX_H_
#define TESSERA_KERNELS_ROWS_SOFTMAX_H_

#include "core/dtype.h"
#include "kernels/view.h"

namespace tessera {

enum class Mask : uint8_t { kNone, kCausal };

// y[c] = exp(s x[c]) / sum of exp(s x[c']) over the columns that a row sees, and 0 elsewhere, for
// each of G groups of W columns: the scores of G heads, say. Row t of a sequence sees the columns
// [low, high) of each group, where given, and with a causal mask only those up to t. A row that
// sees none, or only -infinity, is 0. What is not seen is not read. The gradient is dx = s y (dy -
// <y, dy>).
template <class T_>
struct SoftmaxArgs {
  static constexpr char kName[] = "softmax", kGradName[] = "softmax_grad";
  View<T_> x, y;                  // [B,T,G*W]
  View<const int32_t> low, high;  // [B,T], each may be absent
  int64_t B, T, G, W;
  float scale = 1;
  Mask mask = Mask::kNone;

  template <class F>
  void Tensors(F&& f) {
    f.In("x", x, {B, T, G * W}, kUnread);
    f.Index("low", low, {B, T}, kOptional);
    f.Index("high", high, {B, T}, kOptional);
    f.Out("y", y, {B, T, G * W}, kReread);
  }
  struct Range {
    int64_t low, high;
  };
  // What a row sees of each group.
  constexpr Range RangeOf(int64_t row) const {
    int64_t first = 0, end = mask == Mask::kCausal && row % T < W ? row % T + 1 : W;
    if (low && low.data[row] > first) first = low.data[row];
    if (high && high.data[row] < end) end = high.data[row];
    return {first, end < first ? first : end};
  }

  // As if nothing but a causal mask hid any.
  Cost cost() const {
    return {.flops = seen() * (scale != 1 ? 6 : 5), .bytes = (seen() + all()) * size() + ranges()};
  }
  Cost grad_cost() const {
    return {.flops = seen() * (scale != 1 ? 5 : 4),
            .bytes = (2 * seen() + all()) * size() + ranges()};
  }
  static constexpr int64_t size() { return int64_t{sizeof(T_)}; }
  int64_t all() const { return B * T * G * W; }
  int64_t seen() const {
    if (mask == Mask::kNone) return all();
    const int64_t square = T < W ? T : W;
    return B * G * (square * (square + 1) / 2 + (T - square) * W);
  }
  int64_t ranges() const { return 4 * B * T * ((low ? 1 : 0) + (high ? 1 : 0)); }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_ROWS_SOFTMAX_H_
