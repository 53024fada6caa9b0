#include "ops/pointwise.h"

#include "kernels/pointwise/activation.h"
#include "ops/apply.h"
#include "ops/sum.h"

namespace tessera {
namespace {

void CheckSame(const Var& a, const Var& b) {
  TESSERA_CHECK(a.rows() == b.rows() && a.dim(-1) == b.dim(-1) && a.dtype() == b.dtype(),
                "elements of %s with those of %s", a.shape().ToString().c_str(),
                b.shape().ToString().c_str());
}

// The gradient of scale f by f.
void ScaledGrad(Context& ctx, float scale, const Tensor& dy, const GradSlot& df) {
  if (!df.wanted()) return;
  ByDType(dy.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const ActivationArgs<T> args{
        .f = Activation::kIdentity, .scale = scale, .rows = dy.rows(), .C = dy.dim(-1)};
    Gradient<ActivationArgs<T>> gradient{args, args};
    gradient.d.y = {dy.data<T>(), dy.stride()};
    gradient.d.x = {df.data<T>(), df.stride(), df.mode};
    ctx.Run(gradient);
  });
}

}  // namespace

Var Activate(Context& ctx, Activation f, const Var& x, float scale) {
  return ByDType(x.dtype(), [&](auto tag) {
    const ActivationArgs<decltype(tag)> args{
        .f = f, .scale = scale, .rows = x.rows(), .C = x.dim(-1)};
    return Apply(ctx, args, {x})[0].WithShape(x.shape());
  });
}

Var Gated(Context& ctx, Activation f, const Var& g, const Var& u) {
  CheckSame(g, u);
  return ByDType(g.dtype(), [&](auto tag) {
    const GatedArgs<decltype(tag)> args{.f = f, .rows = g.rows(), .C = g.dim(-1)};
    return Apply(ctx, args, {g, u})[0].WithShape(g.shape());
  });
}

Var Add(Context& ctx, const Var& x, const Var& f, float scale) {
  CheckSame(x, f);
  Tensor y = ctx.New(x.shape(), x.dtype());
  ByDType(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    ctx.Run(AddArgs<T>{.x = {x.data<T>(), x.stride()},
                       .f = {f.data<T>(), f.stride()},
                       .scale = scale,
                       .y = {y.data<T>(), y.stride()},
                       .rows = x.rows(),
                       .C = x.dim(-1)});
  });
  return SumOf(ctx, y, x, f, scale);
}

Var SumOf(Context& ctx, const Tensor& sum, const Var& x, const Var& f, float scale) {
  return ctx.Result(sum, {x, f},
                    [scale, to_x = x.grad(), to_f = f.grad()](Context& ctx, const Tensor& dy) {
                      ScaledGrad(ctx, scale, dy, ctx.GradOf(to_f));
                      ctx.GiveGrad(to_x, dy);
                    });
}

}  // namespace tessera
