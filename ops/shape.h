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

// The elements of x, in their order, in another shape. A view where x has no gaps.
Var Reshape(Context& ctx, const Var& x, const Shape& shape);
// The columns of all parts, [...,C_i], one after another.
Var Concat(Context& ctx, std::span<const Var> parts);
// The tokens of all parts, [B,T_i,C], one after another; the other way, tokens [begin, begin +
// length) of x [B,T,C].
Var ConcatTime(Context& ctx, std::span<const Var> parts);
Var SliceTime(Context& ctx, const Var& x, int64_t begin, int64_t length);

}  // namespace tessera

#endif  // TESSERA_OPS_SHAPE_H_
