#include "ops/time.h"

#include "ops/apply.h"

namespace tessera {

Var Pool(Context& ctx, const Var& x, int64_t n, Pooling pooling) {
  TESSERA_CHECK(n >= 1, "groups of %ld tokens", n);
  return ByDType(x.dtype(), [&](auto tag) {
    const PoolArgs<decltype(tag)> args{
        .B = x.dim(0), .T = x.dim(1), .C = x.dim(2), .n = n, .pooling = pooling};
    return Apply(ctx, args, {x})[0];
  });
}

Var Repeat(Context& ctx, const Var& x, int64_t n, int64_t T) {
  TESSERA_CHECK(n >= 1 && GroupsOf(T, n) == x.dim(1), "%ld tokens %ld times, %ld in all", x.dim(1),
                n, T);
  return ByDType(x.dtype(), [&](auto tag) {
    const RepeatArgs<decltype(tag)> args{.B = x.dim(0), .T = T, .C = x.dim(2), .n = n};
    return Apply(ctx, args, {x})[0];
  });
}

}  // namespace tessera
