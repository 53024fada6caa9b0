#ifndef TESSERA_OPS_ALGEBRA_H_
#define TESSERA_OPS_ALGEBRA_H_

#include "kernels/rows/broadcast.h"
#include "kernels/rows/reduce.h"
#include "kernels/rows/softmax.h"
#include "ops/context.h"

// Words over the columns of each row of x [B,T,C], or over each of `groups` groups of columns that
// follow one another: the scores of a row's heads, the channels of each head. As all ops: see
// ops/ops.h.

namespace tessera {

struct SoftmaxOptions {
  int64_t groups = 1;
  float scale = 1;
  Mask mask = Mask::kNone;
  // int32 [B,T], each may be undefined: row t sees columns [low, high) of each group.
  Tensor low, high;
};
// softmax(scale x) over what each row sees, 0 elsewhere: as x.
Var Softmax(Context& ctx, const Var& x, const SoftmaxOptions& options = {});

// [B,T,groups].
Var Reduce(Context& ctx, Reduction reduction, const Var& x, int64_t groups = 1);

// x v and x + v. v is a parameter [G], which all rows share, or [B,T,G] of fp32 or x's type; G
// divides C, and each value serves the C / G columns of its group.
Var BroadcastMultiply(Context& ctx, const Var& x, const Var& v);
Var BroadcastAdd(Context& ctx, const Var& x, const Var& v);

}  // namespace tessera

#endif  // TESSERA_OPS_ALGEBRA_H_
