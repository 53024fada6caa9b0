#include <algorithm>

#include "kernels/pointwise/copy.h"
#include "ops/attention.h"

namespace tessera {
namespace {

// y[b, y_row + i] (+)= x[b, x_row + i] for i < rows and every b, where each array has its own
// number of rows a batch row. An x of rank 1 is one row for all. Of one row each, as in decoding,
// the batch is a matrix that one copy moves.
struct Rows {
  Tensor tensor;
  int64_t begin = 0;
};
void CopyRows(Context& ctx, const Rows& x, const Rows& y, int64_t rows, Grad mode) {
  if (rows <= 0) return;
  const bool same = x.tensor.shape().rank() == 1, single = rows == 1;
  const int64_t B = y.tensor.dim(0);
  ByDType(y.tensor.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const auto at = [](const Rows& r, int64_t b) {
      T* data = r.tensor.template data<T>();
      return data == nullptr ? data : data + (b * r.tensor.dim(1) + r.begin) * r.tensor.stride();
    };
    const auto stride = [&](const Rows& r) {
      return r.tensor.stride() * (single ? r.tensor.dim(1) : 1);
    };
    for (int64_t b = 0; b < (single ? 1 : B); ++b) {
      ctx.Run(CopyArgs<T>{.x = same ? x.tensor.template data<T>() : at(x, b),
                          .x_stride = same ? 0 : stride(x),
                          .y = at(y, b),
                          .y_stride = stride(y),
                          .mode = mode,
                          .rows = single ? B : rows,
                          .C = y.tensor.dim(-1)});
    }
  });
}

}  // namespace

Var LastRows(Context& ctx, const Var& a, const Var& b, int64_t keep) {
  const int64_t B = b.dim(0), Ta = a.defined() ? a.dim(1) : 0, Tb = b.dim(1), C = b.dim(2);
  TESSERA_CHECK(!a.defined() || a.shape() == Shape({B, Ta, C}), "rows of %s after %s",
                b.shape().ToString().c_str(), a.shape().ToString().c_str());
  const int64_t rows = std::min(Ta + Tb, keep), from_b = std::min(Tb, rows), from_a = rows - from_b;
  Tensor y = ctx.New({B, rows, C}, b.dtype());
  if (from_a > 0) CopyRows(ctx, {a.value(), Ta - from_a}, {y, 0}, from_a, Grad::kOverwrite);
  CopyRows(ctx, {b.value(), Tb - from_b}, {y, from_a}, from_b, Grad::kOverwrite);
  return ctx.Result(
      y, {a, b},
      [B, from_a, from_b, Ta, Tb, C, da = a.grad(), db = b.grad()](Context& ctx, const Tensor& dy) {
        const auto spread = [&](const GradRef& ref, int64_t begin, int64_t kept, int64_t all) {
          const GradSlot slot = ctx.GradOf(ref);
          if (!slot.wanted()) return;
          // The value may be rows that its op counted another way.
          const Tensor to = slot.tensor.Reshape({B, all, C});
          CopyRows(ctx, {dy, begin}, {to, all - kept}, kept, slot.mode);
          if (slot.mode == Grad::kAccumulate || kept == all) return;
          CopyRows(ctx, {ctx.Zeros({C}, to.dtype()), 0}, {to, 0}, all - kept, slot.mode);
        };
        spread(da, 0, from_a, Ta);
        spread(db, from_a, from_b, Tb);
      });
}

void WriteRows(Context& ctx, const Tensor& cache, int64_t first, const Tensor& x) {
  const int64_t T = x.dim(1), capacity = cache.dim(1);
  TESSERA_CHECK(cache.shape() == Shape({x.dim(0), capacity, x.dim(2)}), "rows of %s into %s",
                x.shape().ToString().c_str(), cache.shape().ToString().c_str());
  TESSERA_CHECK(!ctx.recording(), "rows of %s written in place, where gradients are wanted",
                x.shape().ToString().c_str());
  for (int64_t t = std::max<int64_t>(0, T - capacity); t < T;) {
    const int64_t slot = (first + t) % capacity, rows = std::min(T - t, capacity - slot);
    CopyRows(ctx, {x, t}, {cache, slot}, rows, Grad::kOverwrite);
    t += rows;
  }
}

}  // namespace tessera
