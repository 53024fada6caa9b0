#include "ops/shape.h"

#include "kernels/pointwise/copy.h"
#include "ops/pointwise.h"

namespace tessera {
std::vector<Var> Split(Context& ctx, const Var& x, std::span<const int64_t> widths) {
  const GradRef whole = ctx.recording() ? x.grad() : nullptr;
  std::vector<Var> parts;
  int64_t begin = 0;
  for (const int64_t width : widths) {
    parts.push_back(Var(x.value().Slice(begin, width), ViewOf(whole, begin, width)));
    begin += width;
  }
  TESSERA_CHECK(begin == x.dim(-1), "parts of %ld columns of %s", begin,
                x.shape().ToString().c_str());
  // By then every part that is used has written its columns.
  if (whole != nullptr) ctx.Record([whole](Context& ctx) { ctx.CompleteGrad(whole); });
  return parts;
}

namespace {

void ScaleInto(Context& ctx, const Tensor& x, float factor, const Tensor& y, Grad mode) {
  ByDType(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    ctx.Run(CopyArgs<T>{.x = x.data<T>(),
                        .x_stride = x.stride(),
                        .y = y.data<T>(),
                        .y_stride = y.stride(),
                        .mode = mode,
                        .factor = factor,
                        .rows = x.rows(),
                        .C = x.dim(-1)});
  });
}

}  // namespace

Var Scale(Context& ctx, const Var& x, float factor) {
  Tensor y = ctx.New(x.shape(), x.dtype());
  ScaleInto(ctx, x.value(), factor, y, Grad::kOverwrite);
  return ctx.Result(y, {x}, [factor, to_x = x.grad()](Context& ctx, const Tensor& dy) {
    const GradSlot dx = ctx.GradOf(to_x);
    ScaleInto(ctx, dy, factor, dx.tensor, dx.mode);
  });
}

}  // namespace tessera
