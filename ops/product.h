#ifndef TESSERA_OPS_PRODUCT_H_
#define TESSERA_OPS_PRODUCT_H_

#include "ops/context.h"

// Matrix products. As all ops: see ops/ops.h.

namespace tessera {

// x W^T + bias: x [...,K], weight [N,K], bias [N] or undefined.
Var Linear(Context& ctx, const Var& x, const Var& weight, const Var& bias = Var());
// Rows [offsets[e], offsets[e+1]) of x through expert e: x [rows,K] sorted by expert, weight
// [E,N,K], offsets int32 [E+1], bias [E,N] or undefined. Rows from offsets[E] on are left
// undefined, in y and in the gradient of x.
Var GroupedLinear(Context& ctx, const Var& x, const Var& weight, const Tensor& offsets,
                  const Var& bias = Var());

}  // namespace tessera

#endif  // TESSERA_OPS_PRODUCT_H_
