#include "ops/projection.h"

#include "ops/ends.h"
#include "ops/experts.h"
#include "ops/pointwise.h"
#include "ops/product.h"

namespace tessera {
namespace {

// y, which the weight alone has made, with what the adapters add to it: scale up(down(x)).
template <class Down, class Up>
Var WithAdapters(Context& ctx, Var y, const Projection& p, const Down& down, const Up& up) {
  for (const LowRank& a : p.adapters) y = Add(ctx, y, up(down(a.down), a.up), a.scale);
  return y;
}

}  // namespace

Var Linear(Context& ctx, const Var& x, const Projection& p) {
  return WithAdapters(
      ctx, Linear(ctx, x, p.weight, p.bias), p,
      [&](const Var& down) { return Linear(ctx, x, down); },
      [&](const Var& h, const Var& up) { return Linear(ctx, h, up); });
}

Var RouterLogits(Context& ctx, const Var& x, const Projection& p) {
  return WithAdapters(
      ctx, RouterLogits(ctx, x, p.weight), p,
      [&](const Var& down) { return RouterLogits(ctx, x, down); },
      [&](const Var& h, const Var& up) { return RouterLogits(ctx, h, up); });
}

Var DispatchLinear(Context& ctx, const Var& x, const Projection& p, const Routing& r) {
  return WithAdapters(
      ctx, DispatchLinear(ctx, x, p.weight, r), p,
      [&](const Var& down) { return DispatchLinear(ctx, x, down, r); },
      [&](const Var& h, const Var& up) { return GroupedLinear(ctx, h, up, r.offsets); });
}

Var CombineLinear(Context& ctx, const Var& x, const Projection& p, const Routing& r,
                  const Shape& shape) {
  return WithAdapters(
      ctx, CombineLinear(ctx, x, p.weight, r, shape), p,
      [&](const Var& down) { return GroupedLinear(ctx, x, down, r.offsets); },
      [&](const Var& h, const Var& up) { return CombineLinear(ctx, h, up, r, shape); });
}

Var HeadLoss(Context& ctx, const Var& hidden, const Projection& p, const Tensor& targets) {
  std::vector<HeadTerm> terms = {{hidden, p.weight}};
  for (const LowRank& a : p.adapters)
    terms.push_back({Scale(ctx, Linear(ctx, hidden, a.down), a.scale), a.up});
  return HeadLoss(ctx, terms, targets);
}

}  // namespace tessera
