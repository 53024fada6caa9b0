#include "ops/sequence.h"

#include "kernels/layout/document_starts.h"
#include "kernels/layout/positions.h"
#include "ops/apply.h"

namespace tessera {

Tensor DocumentStarts(Context& ctx, const Tensor& position) {
  TESSERA_CHECK(position.dtype() == DType::kI32 && position.shape().rank() == 2,
                "positions are %s %s, not [B,T] of int32", Name(position.dtype()),
                position.shape().ToString().c_str());
  const Tensor start = ctx.New(position.shape(), DType::kI32);
  ctx.Run(DocumentStartsArgs{.position = position.data<int32_t>(),
                             .start = start.data<int32_t>(),
                             .B = position.dim(0),
                             .T = position.dim(1)});
  return start;
}

Tensor StartFor(const Context& ctx, const Tensor& x) {
  TESSERA_CHECK(!ctx.start.defined() || ctx.start.shape() == Shape({x.dim(0), x.dim(1)}),
                "an op over %s whose documents begin where %s rows say",
                x.shape().ToString().c_str(), ctx.start.shape().ToString().c_str());
  return ctx.start;
}

Tensor Positions(Context& ctx, const Tensor& position, const PositionSteps& steps) {
  const PositionsArgs args{.B = position.dim(0),
                           .T = position.dim(1),
                           .count = steps.count,
                           .first = steps.first,
                           .step = steps.step,
                           .divisor = steps.divisor};
  TESSERA_CHECK(steps.count >= 1 && steps.first >= 0 && steps.divisor >= 1 &&
                    steps.first + (steps.count - 1) * steps.step < args.T,
                "positions %ld, %ld apart from %ld on, of %ld tokens", steps.count, steps.step,
                steps.first, args.T);
  return Apply(ctx, args, {}, {position})[0].value();
}

}  // namespace tessera
