#ifndef TESSERA_OPS_SEQUENCE_H_
#define TESSERA_OPS_SEQUENCE_H_

#include "ops/context.h"

// Where documents begin. As all ops: see ops/ops.h.

namespace tessera {

// position [B,T] int32, which counts each document's tokens from 0 over chunks -> Context::start.
Tensor DocumentStarts(Context& ctx, const Tensor& position);

// ctx.start, for an op over time of x [B,T,...]; undefined where that is.
Tensor StartFor(const Context& ctx, const Tensor& x);

}  // namespace tessera

#endif  // TESSERA_OPS_SEQUENCE_H_
