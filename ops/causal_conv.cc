#include "kernels/convolution/causal_conv.h"

#include "ops/apply.h"
#include "ops/convolution.h"
#include "ops/sequence.h"

namespace tessera {

Scanned CausalConv(Context& ctx, const ConvInputs& in, LastState last) {
  return ByDType(in.x.dtype(), [&](auto tag) {
    using Args = CausalConvArgs<decltype(tag)>;
    const int64_t W = in.weight.dim(1);
    TESSERA_CHECK(W >= 2 && W <= Args::kMaxWidth, "a convolution with %ld taps", W);
    const Args args{
        .B = in.x.dim(0), .T = in.x.dim(1), .C = in.x.dim(2), .W = W, .activation = in.activation};
    const bool keep = last == LastState::kKeep;
    const std::vector<Var> out = Apply(ctx, args, {in.x, in.weight, in.bias, in.state},
                                       {StartFor(ctx, in.x.value())}, keep ? 2 : 1);
    return Scanned{out[0], keep ? out[1] : Var()};
  });
}

}  // namespace tessera
