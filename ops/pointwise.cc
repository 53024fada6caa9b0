#include "ops/pointwise.h"

#include "kernels/pointwise/activation.h"
#include "ops/sum.h"

namespace tessera {
namespace {

void CheckSame(const Var& a, const Var& b) {
  TESSERA_CHECK(a.rows() == b.rows() && a.dim(-1) == b.dim(-1) && a.dtype() == b.dtype(),
                "elements of %s with those of %s", a.shape().ToString().c_str(),
                b.shape().ToString().c_str());
}

// The gradient of scale f(x); x is undefined for the identity.
void RunActivationGrad(Context& ctx, Activation f, float scale, const Tensor& x, const Tensor& dy,
                       const GradSlot& dx) {
  ByDType(dy.dtype(), [&](auto tag) {
    using T = decltype(tag);
    ctx.Run(ActivationGradArgs<T>{.f = f,
                                  .scale = scale,
                                  .x = x.data<T>(),
                                  .dy = dy.data<T>(),
                                  .x_stride = x.stride(),
                                  .dy_stride = dy.stride(),
                                  .dx = dx.data<T>(),
                                  .dx_stride = dx.stride(),
                                  .dx_mode = dx.mode,
                                  .rows = dy.rows(),
                                  .C = dy.dim(-1)});
  });
}

}  // namespace

Var Activate(Context& ctx, Activation f, const Var& x, float scale) {
  Tensor y = ctx.New(x.shape(), x.dtype());
  ByDType(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    ctx.Run(ActivationArgs<T>{.f = f,
                              .scale = scale,
                              .x = x.data<T>(),
                              .x_stride = x.stride(),
                              .y = y.data<T>(),
                              .y_stride = y.stride(),
                              .rows = x.rows(),
                              .C = x.dim(-1)});
  });
  const Tensor kept = f == Activation::kIdentity ? Tensor() : x.value();
  return ctx.Result(y, {x}, [=, to_x = x.grad()](Context& ctx, const Tensor& dy) {
    RunActivationGrad(ctx, f, scale, kept, dy, ctx.GradOf(to_x));
  });
}

Var Gated(Context& ctx, Activation f, const Var& g, const Var& u) {
  CheckSame(g, u);
  return ByDType(g.dtype(), [&](auto tag) {
    using T = decltype(tag);
    Tensor y = ctx.New(g.shape(), g.dtype());
    ctx.Run(GatedArgs<T>{.f = f,
                         .g = g.data<T>(),
                         .u = u.data<T>(),
                         .g_stride = g.stride(),
                         .u_stride = u.stride(),
                         .y = y.template data<T>(),
                         .y_stride = y.stride(),
                         .rows = g.rows(),
                         .C = g.dim(-1)});
    return ctx.Result(y, {g, u}, [=](Context& ctx, const Tensor& dy) {
      const GradSlot dg = ctx.GradOf(g), du = ctx.GradOf(u);
      ctx.Run(GatedGradArgs<T>{.f = f,
                               .g = g.data<T>(),
                               .u = u.data<T>(),
                               .dy = dy.data<T>(),
                               .g_stride = g.stride(),
                               .u_stride = u.stride(),
                               .dy_stride = dy.stride(),
                               .dg = dg.data<T>(),
                               .dg_stride = dg.stride(),
                               .dg_mode = dg.mode,
                               .du = du.data<T>(),
                               .du_stride = du.stride(),
                               .du_mode = du.mode,
                               .rows = dy.rows(),
                               .C = dy.dim(-1)});
    });
  });
}

Var Add(Context& ctx, const Var& x, const Var& f, float scale) {
  CheckSame(x, f);
  Tensor y = ctx.New(x.shape(), x.dtype());
  ByDType(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    ctx.Run(AddArgs<T>{.x = x.data<T>(),
                       .f = f.data<T>(),
                       .x_stride = x.stride(),
                       .f_stride = f.stride(),
                       .scale = scale,
                       .y = y.data<T>(),
                       .y_stride = y.stride(),
                       .rows = x.rows(),
                       .C = x.dim(-1)});
  });
  return SumOf(ctx, y, x, f, scale);
}

Var SumOf(Context& ctx, const Tensor& sum, const Var& x, const Var& f, float scale) {
  return ctx.Result(sum, {x, f},
                    [scale, to_x = x.grad(), to_f = f.grad()](Context& ctx, const Tensor& dy) {
                      if (const GradSlot df = ctx.GradOf(to_f); df.wanted())
                        RunActivationGrad(ctx, Activation::kIdentity, scale, Tensor(), dy, df);
                      ctx.GiveGrad(to_x, dy);
                    });
}

}  // namespace tessera
