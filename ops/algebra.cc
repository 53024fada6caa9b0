#include "ops/algebra.h"

#include "ops/apply.h"

namespace tessera {
namespace {

// The columns of a group.
int64_t WidthOf(const char* op, const Var& x, int64_t groups) {
  TESSERA_CHECK(x.shape().rank() == 3 && groups >= 1 && x.dim(2) % groups == 0,
                "%s over %ld groups of columns of %s", op, groups, x.shape().ToString().c_str());
  return x.dim(2) / groups;
}

Var Broadcast(Context& ctx, Broadcasting how, const Var& x, const Var& v) {
  const bool shared = v.shape().rank() == 1;
  const auto apply = [&](auto tx, auto tv) {
    const BroadcastArgs<decltype(tx), decltype(tv)> args{
        .B = x.dim(0),
        .T = x.dim(1),
        .G = v.dim(-1),
        .W = WidthOf("broadcast", x, v.dim(-1)),
        .how = how,
        .values = shared ? Values::kShared : Values::kOfRow};
    return Apply(ctx, args, {x, v})[0];
  };
  TESSERA_CHECK(v.dtype() == DType::kF32 || (v.dtype() == x.dtype() && !shared),
                "values of %s %s for %s %s", Name(v.dtype()), v.shape().ToString().c_str(),
                Name(x.dtype()), x.shape().ToString().c_str());
  if (x.dtype() == DType::kF32) return apply(float{}, float{});
  return v.dtype() == DType::kF32 ? apply(bf16{}, float{}) : apply(bf16{}, bf16{});
}

}  // namespace

Var Softmax(Context& ctx, const Var& x, const SoftmaxOptions& options) {
  return ByDType(x.dtype(), [&](auto tag) {
    const SoftmaxArgs<decltype(tag)> args{.B = x.dim(0),
                                          .T = x.dim(1),
                                          .G = options.groups,
                                          .W = WidthOf("softmax", x, options.groups),
                                          .scale = options.scale,
                                          .mask = options.mask};
    return Apply(ctx, args, {x}, {options.low, options.high})[0];
  });
}

Var Reduce(Context& ctx, Reduction reduction, const Var& x, int64_t groups) {
  return ByDType(x.dtype(), [&](auto tag) {
    const ReduceArgs<decltype(tag)> args{.B = x.dim(0),
                                         .T = x.dim(1),
                                         .G = groups,
                                         .W = WidthOf("reduce", x, groups),
                                         .reduction = reduction};
    return Apply(ctx, args, {x})[0];
  });
}

Var BroadcastMultiply(Context& ctx, const Var& x, const Var& v) {
  return Broadcast(ctx, Broadcasting::kMultiply, x, v);
}
Var BroadcastAdd(Context& ctx, const Var& x, const Var& v) {
  return Broadcast(ctx, Broadcasting::kAdd, x, v);
}

}  // namespace tessera
