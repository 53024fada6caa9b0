#ifndef TESSERA_OPS_TIME_H_
#define TESSERA_OPS_TIME_H_

#include "kernels/layout/pool.h"
#include "ops/context.h"
#include "ops/scan.h"

// Sequences moved, and made shorter and longer. As all ops: see ops/ops.h.

namespace tessera {

// The token n before each of x [B,T,C], 0 before its document; state [B,n,C] may be undefined.
Scanned Shift(Context& ctx, const Var& x, const Var& state, int64_t n, LastState last);
// A token for each n of x [B,T,C]: [B,ceil(T/n),C].
Var Pool(Context& ctx, const Var& x, int64_t n, Pooling pooling = Pooling::kMean);
// Each token of x [B,ceil(T/n),C] n times, T in all: [B,T,C].
Var Repeat(Context& ctx, const Var& x, int64_t n, int64_t T);

}  // namespace tessera

#endif  // TESSERA_OPS_TIME_H_
