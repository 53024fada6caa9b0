#ifndef TESSERA_OPS_PROJECTION_H_
#define TESSERA_OPS_PROJECTION_H_

#include <cstdint>
#include <vector>

#include "ops/context.h"

// As all ops: see ops/ops.h.

namespace tessera {

// A block's weight and what belongs to it (arch/parameters.h makes it). Linear(x, projection) is
// where it is multiplied, whatever form it has.
struct Projection {
  Var weight;                   // [out, in], fp32
  Var bias;                     // [out], or undefined
  std::vector<int64_t> widths;  // of its parts, which together are `out`
  bool defined() const { return weight.defined(); }
};

// x W^T + bias.
Var Linear(Context& ctx, const Var& x, const Projection& projection);

}  // namespace tessera

#endif  // TESSERA_OPS_PROJECTION_H_
