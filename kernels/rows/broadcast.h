#ifndef TESSERA_KERNELS_ROWS_BROADCAST_H_
#define TESSERA_KERNELS_ROWS_BROADCAST_H_

#include "core/dtype.h"
#include "kernels/view.h"

namespace tessera {

enum class Broadcasting : uint8_t { kMultiply, kAdd };
// Whether a row has its own values, or all rows have the same.
enum class Values : uint8_t { kOfRow, kShared };

// y[c] = x[c] v[g] or x[c] + v[g], c a column of group g, for G groups of W columns. G is the
// number of columns where v has a value for each. Sums over rows, of the gradient of what they
// share, are taken in blocks of rows and then over blocks, in order.
template <class T_, class V>
struct BroadcastArgs {
  static constexpr char kName[] = "broadcast", kGradName[] = "broadcast_grad";
  View<T_> x;  // [B,T,G*W]
  View<V> v;   // [B,T,G], shared [G]
  View<T_> y;  // [B,T,G*W]
  int64_t B, T, G, W;
  Broadcasting how = Broadcasting::kMultiply;
  Values values = Values::kOfRow;

  template <class F>
  void Tensors(F&& f) {
    const unsigned use = how == Broadcasting::kAdd ? kUnread : kPlain;
    const int64_t b = shared() ? 1 : B, t = shared() ? 1 : T;
    f.In("x", x, {B, T, G * W}, use);
    f.In("v", v, {b, t, G}, use | (shared() ? kDense : kPlain));
    f.Out("y", y, {B, T, G * W});
  }
  constexpr bool shared() const { return values == Values::kShared; }
  constexpr int64_t rows() const { return B * T; }
  constexpr int64_t v_row(int64_t row) const { return shared() ? 0 : row; }

  Cost cost() const { return {.flops = elements(), .bytes = 2 * x_bytes() + v_bytes()}; }
  // Of the gradients that are wanted.
  Cost grad_cost(const BroadcastArgs& d) const {
    const bool multiply = how == Broadcasting::kMultiply;
    Cost cost{.bytes = x_bytes()};
    if (d.x) cost += {.flops = multiply ? elements() : 0, .bytes = x_bytes()};
    if (d.x && multiply) cost += {.bytes = v_bytes()};
    if (d.v) cost += {.flops = (multiply ? 2 : 1) * elements(), .bytes = v_bytes()};
    if (d.v && multiply) cost += {.bytes = x_bytes()};
    return cost;
  }
  int64_t elements() const { return rows() * G * W; }
  int64_t x_bytes() const { return elements() * int64_t{sizeof(T_)}; }
  int64_t v_bytes() const { return (shared() ? 1 : rows()) * G * int64_t{sizeof(V)}; }

  // Rows of a block, and how many: on a CPU 64 at most.
  static constexpr int64_t kCudaRows = 64;
  int64_t block_rows() const { return rows() <= 32 * 64 ? 32 : (rows() + 63) / 64; }
  int64_t blocks() const { return (rows() + block_rows() - 1) / block_rows(); }
  int64_t cuda_blocks() const { return (rows() + kCudaRows - 1) / kCudaRows; }
  // Sums of blocks, and of each row where a group is more than a column.
  int64_t GradCudaScratch() const {
    return shared() ? (cuda_blocks() + (W > 1 ? rows() : 0)) * G : 0;
  }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_ROWS_BROADCAST_H_
