#include "kernels/scan/gla_scan.h"

#include "ops/apply.h"
#include "ops/scan.h"
#include "ops/sequence.h"

namespace tessera {

Scanned GlaScan(Context& ctx, const GlaInputs& in, LastState last) {
  const int64_t H = in.heads;
  TESSERA_CHECK(H >= 1 && in.q.dim(2) % H == 0 && in.v.dim(2) % H == 0,
                "a GLA scan of %ld heads over q %s, v %s", H, in.q.shape().ToString().c_str(),
                in.v.shape().ToString().c_str());
  return ByDType(in.q.dtype(), [&](auto tag) {
    const GlaScanArgs<decltype(tag)> args{.B = in.q.dim(0),
                                          .T = in.q.dim(1),
                                          .H = H,
                                          .K = in.q.dim(2) / H,
                                          .V = in.v.dim(2) / H,
                                          .scale = in.scale};
    const bool keep = last == LastState::kKeep;
    const std::vector<Var> out = Apply(ctx, args, {in.q, in.k, in.v, in.g, in.state},
                                       {StartFor(ctx, in.q.value())}, keep ? 2 : 1);
    return Scanned{out[0], keep ? out[1] : Var()};
  });
}

}  // namespace tessera
