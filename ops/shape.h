#ifndef TESSERA_OPS_SHAPE_H_
#define TESSERA_OPS_SHAPE_H_

#include <span>
#include <vector>

#include "ops/context.h"

// Views and joins of Vars. As all ops: see ops/ops.h.

namespace tessera {

// Columns of x in consecutive parts of the given widths: views, and so are their gradients. The
// widths add up to x's.
std::vector<Var> Split(Context& ctx, const Var& x, std::span<const int64_t> widths);

}  // namespace tessera

#endif  // TESSERA_OPS_SHAPE_H_
