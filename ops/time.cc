#include "ops/time.h"

#include "kernels/layout/shift.h"
#include "ops/apply.h"
#include "ops/sequence.h"

namespace tessera {

Scanned Shift(Context& ctx, const Var& x, const Var& state, int64_t n, LastState last) {
  TESSERA_CHECK(n >= 1, "a shift by %ld tokens", n);
  return ByDType(x.dtype(), [&](auto tag) {
    const ShiftArgs<decltype(tag)> args{.B = x.dim(0), .T = x.dim(1), .C = x.dim(2), .n = n};
    const bool keep = last == LastState::kKeep;
    const std::vector<Var> out =
        Apply(ctx, args, {x, state}, {StartFor(ctx, x.value())}, keep ? 2 : 1);
    return Scanned{out[0], keep ? out[1] : Var()};
  });
}

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
