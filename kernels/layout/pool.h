#ifndef TESSERA_KERNELS_LAYOUT_POOL_H_
#define TESSERA_KERNELS_LAYOUT_POOL_H_

#include "core/dtype.h"
#include "kernels/view.h"

// Groups of n tokens that follow one another, the last of a sequence as short as it comes, and one
// token for each: what shortens a sequence and lengthens it again (Dai et al. 2020,
// arXiv:2006.03236, section 2.3; Nawrot et al. 2021, arXiv:2110.13711, section 2.1). Each is the
// other's derivative, up to a factor.

namespace tessera {

constexpr int64_t GroupsOf(int64_t T, int64_t n) { return (T + n - 1) / n; }

enum class Pooling : uint8_t { kMean, kSum, kMax };

// y[b,j] = the mean, sum or maximum of x[b,t] over t in [jn, min(jn + n, T)), a column at a time.
// Among equal maxima the first has the gradient.
template <class T_>
struct PoolArgs {
  static constexpr char kName[] = "pool", kGradName[] = "pool_grad";
  View<T_> x;  // [B,T,C]
  View<T_> y;  // [B,GroupsOf(T, n),C]
  int64_t B, T, C, n;
  Pooling pooling = Pooling::kMean;
  template <class F>
  void Tensors(F&& f) {
    f.In("x", x, {B, T, C}, pooling == Pooling::kMax ? kPlain : kUnread);
    f.Out("y", y, {B, GroupsOf(T, n), C});
  }
  Cost cost() const { return {.flops = B * T * C, .bytes = bytes()}; }
  Cost grad_cost() const {
    const bool max = pooling == Pooling::kMax;
    return {.flops = B * T * C, .bytes = bytes() + (max ? B * T * C * int64_t{sizeof(T_)} : 0)};
  }
  int64_t bytes() const { return B * (T + GroupsOf(T, n)) * C * int64_t{sizeof(T_)}; }
};

// y[b,t] = x[b, t / n]; the gradient of x is a sum over its group.
template <class T_>
struct RepeatArgs {
  static constexpr char kName[] = "repeat", kGradName[] = "repeat_grad";
  View<T_> x;  // [B,GroupsOf(T, n),C]
  View<T_> y;  // [B,T,C]
  int64_t B, T, C, n;
  template <class F>
  void Tensors(F&& f) {
    f.In("x", x, {B, GroupsOf(T, n), C}, kUnread);
    f.Out("y", y, {B, T, C});
  }
  Cost cost() const {
    return {.bytes = B * (T + GroupsOf(T, n)) * C * static_cast<int64_t>(sizeof(T_))};
  }
  Cost grad_cost() const { return {.flops = B * T * C, .bytes = cost().bytes}; }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_LAYOUT_POOL_H_
