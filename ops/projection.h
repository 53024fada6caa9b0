#ifndef TESSERA_OPS_PROJECTION_H_
#define TESSERA_OPS_PROJECTION_H_

#include <cstdint>
#include <vector>

#include "ops/context.h"

// As all ops: see ops/ops.h.

namespace tessera {

struct Routing;  // ops/experts.h

// What changes a weight W to W + scale B A, a product of low rank (Hu et al. 2021,
// arXiv:2106.09685, eq. 3). It is never multiplied out: x goes through A, then through B.
struct LowRank {
  Var down;  // A [rank,in], of experts [E,rank,in]
  Var up;    // B [out,rank], of experts [E,out,rank]
  float scale = 1;
};

// A block's weight and what belongs to it (arch/parameters.h makes it). The functions below are
// where it is multiplied, whatever form it has.
struct Projection {
  Var weight;                     // [out,in], of experts [E,out,in]; fp32
  Var bias;                       // [out], or undefined
  std::vector<int64_t> widths;    // of its parts, which together are `out`
  std::vector<LowRank> adapters;  // which add to the weight
  bool defined() const { return weight.defined(); }
};

// x W^T + bias.
Var Linear(Context& ctx, const Var& x, const Projection& projection);
// The same without rounding, whatever the compute type: fp32 [R,E] of a router's weight [E,D].
Var RouterLogits(Context& ctx, const Var& x, const Projection& router);
// The products of experts, as ops/experts.h has them for a weight alone.
Var DispatchLinear(Context& ctx, const Var& x, const Projection& experts, const Routing& routing);
Var CombineLinear(Context& ctx, const Var& x, const Projection& experts, const Routing& routing,
                  const Shape& shape);
// The mean cross-entropy of a head, as in ops/ends.h.
Var HeadLoss(Context& ctx, const Var& hidden, const Projection& head, const Tensor& targets);

}  // namespace tessera

#endif  // TESSERA_OPS_PROJECTION_H_
