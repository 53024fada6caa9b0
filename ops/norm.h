#ifndef TESSERA_OPS_NORM_H_
#define TESSERA_OPS_NORM_H_

#include "kernels/rows/norm.h"
#include "ops/context.h"

// Norms over channels. As all ops: see ops/ops.h.

namespace tessera {

// Of each token's channels, or of each of `groups` groups of them. gain is [D], [D/groups] shared
// by the groups, or undefined; bias is [D] or undefined.
Var RmsNorm(Context& ctx, const Var& x, const Var& gain, float eps, int64_t groups = 1);
Var LayerNorm(Context& ctx, const Var& x, const Var& gain, const Var& bias, float eps,
              int64_t groups = 1);
// x + scale f, and the norm of that, in one pass over memory.
struct SumAndNorm {
  Var sum, y;
};
SumAndNorm AddRmsNorm(Context& ctx, const Var& x, const Var& f, float scale, const Var& gain,
                      float eps);
SumAndNorm AddLayerNorm(Context& ctx, const Var& x, const Var& f, float scale, const Var& gain,
                        const Var& bias, float eps);
// With silu(z) before or after the norm.
Var GatedRmsNorm(Context& ctx, const Var& x, const Var& z, const Var& gain, NormGate gate,
                 float eps, int64_t groups = 1);

}  // namespace tessera

#endif  // TESSERA_OPS_NORM_H_
