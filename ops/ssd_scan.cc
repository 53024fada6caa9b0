#include "kernels/scan/ssd_scan.h"

#include "ops/apply.h"
#include "ops/scan.h"
#include "ops/sequence.h"

namespace tessera {

Scanned SsdScan(Context& ctx, const SsdInputs& in, LastState last) {
  const int64_t H = in.A_log.value().elements(), N = in.N, G = in.b.dim(2) / N;
  TESSERA_CHECK(G > 0 && H % G == 0 && in.x.dim(2) % H == 0,
                "an SSD scan of %ld heads in %ld groups over x %s", H, G,
                in.x.shape().ToString().c_str());
  return ByDType(in.x.dtype(), [&](auto tag) {
    const SsdScanArgs<decltype(tag)> args{
        .B = in.x.dim(0), .T = in.x.dim(1), .H = H, .G = G, .N = N, .P = in.x.dim(2) / H};
    const bool keep = last == LastState::kKeep;
    const std::vector<Var> out =
        Apply(ctx, args, {in.x, in.dt, in.b, in.c, in.A_log, in.dt_bias, in.D, in.state},
              {StartFor(ctx, in.x.value())}, keep ? 2 : 1);
    return Scanned{out[0], keep ? out[1] : Var()};
  });
}

}  // namespace tessera
