#ifndef TESSERA_OPS_SUM_H_
#define TESSERA_OPS_SUM_H_

#include "ops/context.h"

namespace tessera {

// The result of x + scale f, whose value some kernel has put, or will put, into `sum`.
Var SumOf(Context& ctx, const Tensor& sum, const Var& x, const Var& f, float scale);

}  // namespace tessera

#endif  // TESSERA_OPS_SUM_H_
