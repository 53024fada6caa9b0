#include "kernels/rows/norm.h"

#include "ops/dense.h"
#include "ops/norm.h"
#include "ops/sum.h"

namespace tessera {
namespace {

struct Options {
  NormKind kind = NormKind::kRms;
  NormGate gate = NormGate::kNone;
  int64_t groups = 1;
  float eps;
};

template <class T>
NormArgs<T> ForwardArgs(const Var& x, const Var& z, const Var& gain, const Var& bias,
                        const Options& o) {
  return {.kind = o.kind,
          .gate = o.gate,
          .x = x.data<T>(),
          .x_stride = x.stride(),
          .z = z.data<T>(),
          .z_stride = z.stride(),
          .gain = Dense(gain),
          .shared_gain = gain.defined() && gain.dim(-1) != x.dim(-1),
          .bias = Dense(bias),
          .rows = x.rows(),
          .D = x.dim(-1),
          .G = o.groups,
          .eps = o.eps};
}

void CheckShapes(const Var& x, const Var& z, const Var& gain, const Var& bias, const Options& o) {
  const int64_t D = x.dim(-1);
  TESSERA_CHECK(o.groups > 0 && D % o.groups == 0, "%ld channels in %ld groups", D, o.groups);
  TESSERA_CHECK(!z.defined() || (z.rows() == x.rows() && z.dim(-1) == D && z.dtype() == x.dtype()),
                "a gate of %s for an input of %s", z.shape().ToString().c_str(),
                x.shape().ToString().c_str());
  TESSERA_CHECK(
      !gain.defined() || gain.value().elements() == D || gain.value().elements() == D / o.groups,
      "a gain of %s for %ld channels in %ld groups", gain.shape().ToString().c_str(), D, o.groups);
  TESSERA_CHECK(!bias.defined() || bias.value().elements() == D, "a bias of %s for %ld channels",
                bias.shape().ToString().c_str(), D);
}

// What x is the sum of.
struct Terms {
  Var x, f;
  float scale = 1;
};

// With terms, x is their sum, which the kernel computes as well.
Var Norm(Context& ctx, const Var& x, const Var& z, const Var& gain, const Var& bias,
         const Options& o, const Terms& terms = {}) {
  CheckShapes(x, z, gain, bias, o);
  return ByDType(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    Tensor y = ctx.New(x.shape(), x.dtype());
    Tensor rstd = ctx.New({x.rows(), o.groups}, DType::kF32), mean;
    if (o.kind == NormKind::kLayer) mean = ctx.New({x.rows(), o.groups}, DType::kF32);
    NormArgs<T> args = ForwardArgs<T>(x, z, gain, bias, o);
    if (terms.f.defined()) {
      args.x = terms.x.data<T>();
      args.x_stride = terms.x.stride();
      args.residual = terms.f.data<T>();
      args.residual_stride = terms.f.stride();
      args.residual_scale = terms.scale;
      args.sum = x.data<T>();
      args.sum_stride = x.stride();
    }
    args.y = y.template data<T>();
    args.y_stride = y.stride();
    args.rstd = rstd.data<float>();
    args.mean = mean.data<float>();
    ctx.Run(args);
    return ctx.Result(y, {x, z, gain, bias}, [=](Context& ctx, const Tensor& dy) {
      const NormArgs<T> f = ForwardArgs<T>(x, z, gain, bias, o);
      const GradSlot dx = ctx.GradOf(x), dz = ctx.GradOf(z), dgain = ctx.GradOf(gain),
                     dbias = ctx.GradOf(bias);
      NormGradArgs<T> args{.kind = f.kind,
                           .gate = f.gate,
                           .x = f.x,
                           .z = f.z,
                           .x_stride = f.x_stride,
                           .z_stride = f.z_stride,
                           .gain = f.gain,
                           .shared_gain = f.shared_gain,
                           .rstd = rstd.data<float>(),
                           .mean = mean.data<float>(),
                           .dy = dy.data<T>(),
                           .dy_stride = dy.stride(),
                           .dx = dx.data<T>(),
                           .dx_stride = dx.stride(),
                           .dx_mode = dx.mode,
                           .dz = dz.data<T>(),
                           .dz_stride = dz.stride(),
                           .dz_mode = dz.mode,
                           .dgain = dgain.data<float>(),
                           .dgain_mode = dgain.mode,
                           .dbias = dbias.data<float>(),
                           .dbias_mode = dbias.mode,
                           .rows = f.rows,
                           .D = f.D,
                           .G = f.G};
      Tensor partial;
      if (dgain.wanted() || dbias.wanted()) partial = ctx.New({args.blocks(), 2, f.D}, DType::kF32);
      args.partial = partial.data<float>();
      ctx.Run(args);
    });
  });
}

SumAndNorm AddNorm(Context& ctx, const Terms& terms, const Var& gain, const Var& bias,
                   const Options& o) {
  const Var &x = terms.x, &f = terms.f;
  TESSERA_CHECK(x.shape() == f.shape() && x.dtype() == f.dtype(), "the sum of %s and %s",
                x.shape().ToString().c_str(), f.shape().ToString().c_str());
  SumAndNorm out;
  out.sum = SumOf(ctx, ctx.New(x.shape(), x.dtype()), x, f, terms.scale);
  out.y = Norm(ctx, out.sum, Var(), gain, bias, o, terms);
  return out;
}

}  // namespace

SumAndNorm AddRmsNorm(Context& ctx, const Var& x, const Var& f, float scale, const Var& gain,
                      float eps) {
  return AddNorm(ctx, {x, f, scale}, gain, Var(), {.eps = eps});
}

SumAndNorm AddLayerNorm(Context& ctx, const Var& x, const Var& f, float scale, const Var& gain,
                        const Var& bias, float eps) {
  return AddNorm(ctx, {x, f, scale}, gain, bias, {.kind = NormKind::kLayer, .eps = eps});
}

Var RmsNorm(Context& ctx, const Var& x, const Var& gain, float eps, int64_t groups) {
  return Norm(ctx, x, Var(), gain, Var(), {.groups = groups, .eps = eps});
}

Var LayerNorm(Context& ctx, const Var& x, const Var& gain, const Var& bias, float eps,
              int64_t groups) {
  return Norm(ctx, x, Var(), gain, bias, {.kind = NormKind::kLayer, .groups = groups, .eps = eps});
}

Var GatedRmsNorm(Context& ctx, const Var& x, const Var& z, const Var& gain, NormGate gate,
                 float eps, int64_t groups) {
  TESSERA_CHECK(gate != NormGate::kNone, "a gated norm of %s without its gate",
                x.shape().ToString().c_str());
  return Norm(ctx, x, z, gain, Var(), {.gate = gate, .groups = groups, .eps = eps});
}

}  // namespace tessera
