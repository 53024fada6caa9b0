#include "kernels/rows/norm.h"

#include "ops/apply.h"
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

// What x is the sum of.
struct Terms {
  Var x, f;
  float scale = 1;
};

// With terms, x is their sum, which the kernel computes as well.
Var Norm(Context& ctx, const Var& x, const Var& z, const Var& gain, const Var& bias,
         const Options& o, const Terms& terms = {}) {
  const int64_t D = x.dim(-1);
  TESSERA_CHECK(o.groups > 0 && D % o.groups == 0, "%ld channels in %ld groups", D, o.groups);
  return ByDType(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    NormArgs<T> args{.kind = o.kind,
                     .gate = o.gate,
                     .residual_scale = terms.scale,
                     .rows = x.rows(),
                     .D = D,
                     .G = o.groups,
                     .eps = o.eps,
                     .shared_gain = gain.defined() && gain.dim(-1) != D};
    if (terms.f.defined()) {
      args.first = {terms.x.data<T>(), terms.x.stride()};
      args.residual = {terms.f.data<T>(), terms.f.stride()};
    }
    return Apply(ctx, args, {x, z, gain, bias})[0].WithShape(x.shape());
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
