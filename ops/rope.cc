#include "kernels/attention/rope.h"

#include "ops/apply.h"
#include "ops/attention.h"

namespace tessera {

Var Rope(Context& ctx, const Var& x, int64_t heads, const RopeRotation& rotation) {
  TESSERA_CHECK(x.shape().rank() == 3 && x.dim(2) % heads == 0 && rotation.R <= x.dim(2) / heads &&
                    rotation.R % 2 == 0,
                "rope of %s in %ld heads, %ld rotated channels", x.shape().ToString().c_str(),
                heads, rotation.R);
  TESSERA_CHECK(ctx.position.defined(), "rope of %s needs the positions of its tokens",
                x.shape().ToString().c_str());
  return ByDType(x.dtype(), [&](auto tag) {
    const RopeArgs<decltype(tag)> args{
        .B = x.dim(0), .T = x.dim(1), .H = heads, .K = x.dim(2) / heads, .rotation = rotation};
    return Apply(ctx, args, {x}, {ctx.position})[0];
  });
}

}  // namespace tessera
