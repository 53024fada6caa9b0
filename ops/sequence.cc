#include "ops/sequence.h"

#include "kernels/layout/documents.h"
#include "kernels/layout/positions.h"
#include "ops/apply.h"

namespace tessera {

Tensor DocumentStarts(Context& ctx, const Tensor& position) {
  const DocumentStartsArgs args{.B = position.dim(0), .T = position.dim(-1)};
  return Apply(ctx, args, {}, {position})[0].value();
}

Tensor DocumentEnds(Context& ctx, const Tensor& start) {
  const DocumentEndsArgs args{.B = start.dim(0), .T = start.dim(-1)};
  return Apply(ctx, args, {}, {start})[0].value();
}

Tensor StartFor(const Context& ctx, const Tensor& x) {
  TESSERA_CHECK(!ctx.start.defined() || ctx.start.shape() == Shape({x.dim(0), x.dim(1)}),
                "an op over %s whose documents begin where %s rows say",
                x.shape().ToString().c_str(), ctx.start.shape().ToString().c_str());
  return ctx.start;
}

Tensor EndFor(Context& ctx, const Tensor& x) {
  const Tensor start = StartFor(ctx, x);
  return start.defined() ? DocumentEnds(ctx, start) : start;
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

Tensor Count(Context& ctx, int64_t B, int64_t count, int64_t first) {
  const PositionsArgs args{
      .B = B, .T = first + count, .count = count, .first = first, .step = 1, .divisor = 1};
  return Apply(ctx, args, {}, {Tensor()})[0].value();
}

}  // namespace tessera
