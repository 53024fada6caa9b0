#ifndef TESSERA_OPS_POINTWISE_H_
#define TESSERA_OPS_POINTWISE_H_

#include "kernels/pointwise/activation.h"
#include "ops/context.h"

// Functions of single elements. As all ops: see ops/ops.h.

namespace tessera {

// scale f(x).
Var Activate(Context& ctx, Activation f, const Var& x, float scale = 1);
// f(g) u: swiglu and geglu of the halves of a projection (Split), gates, products.
Var Gated(Context& ctx, Activation f, const Var& g, const Var& u);
// x + scale f.
Var Add(Context& ctx, const Var& x, const Var& f, float scale = 1);
// factor x.
Var Scale(Context& ctx, const Var& x, float factor);

}  // namespace tessera

#endif  // TESSERA_OPS_POINTWISE_H_
