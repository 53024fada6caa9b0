#ifndef TESSERA_OPS_ROWS_H_
#define TESSERA_OPS_ROWS_H_

#include "kernels/layout/choose.h"
#include "kernels/layout/gather.h"
#include "ops/context.h"

// Rows chosen, taken and put: what is sparse over tokens, experts or memories. As all ops: see
// ops/ops.h.

namespace tessera {

struct ChooseOptions {
  ChooseAxis axis = ChooseAxis::kLast;
  ChooseOrder order = ChooseOrder::kByScore;
  Tensor bias = {};  // fp32 [N], added to the scores that decide; undefined: none
  // Of `groups` groups of neighbours the `kept_groups` best, by the sums of their two best scores,
  // have candidates.
  int64_t groups = 1, kept_groups = 1;
};
struct Chosen {
  Tensor index;  // int32, places along the axis
  Var value;     // the scores there, without the bias
};
// The k largest of x [...,N] in each row: [...,k]. Along time, of x [B,T,C] in each column of each
// sequence: [B,C,k].
Chosen Choose(Context& ctx, const Var& x, int64_t k, const ChooseOptions& options = {});

// Rows of x [B,n,C] by index int32 [B,...], which counts within a sequence: [B,...,C]. Rows of
// x [n,C] by index [...]: [...,C]. Outside [0, n): zeros.
Var Gather(Context& ctx, const Var& x, const Tensor& index);
// The other way: rows x [B,...,C] added up at index [B,...] of [B,n,C]; x [rows,C] at index [rows]
// of [n,C]. With kMean the mean of each segment's rows, zeros where it has none.
Var Scatter(Context& ctx, const Var& x, const Tensor& index, int64_t n,
            ScatterTo to = ScatterTo::kSum);

}  // namespace tessera

#endif  // TESSERA_OPS_ROWS_H_
