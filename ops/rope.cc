#include "kernels/attention/rope.h"

#include "ops/attention.h"

namespace tessera {
namespace {

void RunRope(Context& ctx, const Tensor& x, const Tensor& position, int64_t heads,
             const RopeRotation& rotation, RopeDirection direction, const Tensor& y, Grad mode) {
  ByDType(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    ctx.Run(RopeArgs<T>{.x = x.data<T>(),
                        .x_stride = x.stride(),
                        .position = position.data<int32_t>(),
                        .y = y.data<T>(),
                        .y_stride = y.stride(),
                        .mode = mode,
                        .rows = x.rows(),
                        .H = heads,
                        .K = x.dim(-1) / heads,
                        .direction = direction,
                        .rotation = rotation});
  });
}

}  // namespace

Var Rope(Context& ctx, const Var& x, int64_t heads, const RopeRotation& rotation) {
  TESSERA_CHECK(x.shape().rank() == 3 && x.dim(2) % heads == 0 && rotation.R <= x.dim(2) / heads &&
                    rotation.R % 2 == 0,
                "rope of %s in %ld heads, %ld rotated channels", x.shape().ToString().c_str(),
                heads, rotation.R);
  TESSERA_CHECK(ctx.position.defined() && ctx.position.elements() == x.rows(),
                "rope of %s needs the positions of its tokens", x.shape().ToString().c_str());
  Tensor y = ctx.New(x.shape(), x.dtype());
  const Tensor position = ctx.position;
  RunRope(ctx, x.value(), position, heads, rotation, RopeDirection::kForward, y, Grad::kOverwrite);
  return ctx.Result(y, {x},
                    [position, heads, rotation, dx = x.grad()](Context& ctx, const Tensor& dy) {
                      const GradSlot slot = ctx.GradOf(dx);
                      RunRope(ctx, dy, position, heads, rotation, RopeDirection::kGradient,
                              slot.tensor, slot.mode);
                    });
}

}  // namespace tessera
