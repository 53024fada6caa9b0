#ifndef TESSERA_OPS_CONVOLUTION_H_
#define TESSERA_OPS_CONVOLUTION_H_

#include "kernels/convolution/causal_conv.h"
#include "ops/context.h"
#include "ops/scan.h"

// Convolutions over time. As all ops: see ops/ops.h.

namespace tessera {

// A short depthwise convolution of x [B,T,C] with weight [C,W]; bias [C] and state [B,W-1,C] may be
// undefined. Documents are those of ctx.start.
struct ConvInputs {
  Var x, weight, bias, state;
  ConvActivation activation = ConvActivation::kNone;
};
Scanned CausalConv(Context& ctx, const ConvInputs& in, LastState last);

}  // namespace tessera

#endif  // TESSERA_OPS_CONVOLUTION_H_
