#include "kernels/product/batched_matmul.h"

#include "ops/apply.h"
#include "ops/product.h"

namespace tessera {

Var BatchedMatmul(Context& ctx, const Var& a, const Var& b, const BatchedMatmulOptions& options) {
  const int64_t H = options.heads;
  TESSERA_CHECK(a.shape().rank() == 3 && b.shape().rank() == 3 && a.dim(0) == b.dim(0) && H >= 1 &&
                    a.dim(2) % H == 0 && b.dim(2) % H == 0,
                "a product of %s and %s in %ld heads", a.shape().ToString().c_str(),
                b.shape().ToString().c_str(), H);
  const bool a_plain = options.a == Order::kPlain, b_plain = options.b == Order::kPlain;
  const auto apply = [&](auto ta, auto tb, auto tc) {
    const BatchedMatmulArgs<decltype(ta), decltype(tb), decltype(tc)> args{
        .B = a.dim(0),
        .H = H,
        .M = a_plain ? a.dim(1) : a.dim(2) / H,
        .N = b_plain ? b.dim(2) / H : b.dim(1),
        .K = a_plain ? a.dim(2) / H : a.dim(1),
        .a_order = options.a,
        .b_order = options.b,
        .lower = options.lower,
        .alpha = options.alpha,
        .precision = a.dtype() == DType::kF32 && b.dtype() == DType::kF32 ? Precision::kF32
                                                                          : Precision::kBF16};
    return Apply(ctx, args, {a, b})[0];
  };
  return ByDType(a.dtype(), [&](auto ta) {
    return ByDType(b.dtype(), [&](auto tb) {
      return ByDType(options.result.value_or(ctx.compute),
                     [&](auto tc) { return apply(ta, tb, tc); });
    });
  });
}

}  // namespace tessera
