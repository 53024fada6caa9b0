#include "kernels/experts/expert_activation.h"

#include "ops/apply.h"
#include "ops/experts.h"

namespace tessera {

namespace {

// Undefined: no weights, no routing.
struct Rows {
  Var weight;
  Tensor slot_of, used;
};

Var ActivateRows(Context& ctx, Activation f, Gating gating, const Var& x, const Rows& by) {
  const int64_t width = x.dim(-1), parts = gating == Gating::kGated ? 2 : 1;
  TESSERA_CHECK(width % parts == 0, "a gated activation of %s", x.shape().ToString().c_str());
  Shape shape = x.shape();
  shape.Set(-1, width / parts);
  return ByDType(x.dtype(), [&](auto tag) {
    const ExpertActivationArgs<decltype(tag)> args{
        .f = f,
        .gating = gating,
        .rows = x.rows(),
        .F = width / parts,
        .choices = by.weight.defined() ? by.weight.dim(-1) : 1};
    return Apply(ctx, args, {x, by.weight}, {by.slot_of, by.used})[0].WithShape(shape);
  });
}

}  // namespace

Var ExpertActivation(Context& ctx, Activation f, Gating gating, const Var& x, const Routing& r) {
  TESSERA_CHECK(x.rows() == r.R * r.k, "%s for %ld routed rows", x.shape().ToString().c_str(),
                r.R * r.k);
  return ActivateRows(ctx, f, gating, x, {r.weight, r.slot_of, r.offsets.Slice(r.E, 1)});
}

Var WeightedActivation(Context& ctx, Activation f, Gating gating, const Var& x, const Var& weight) {
  return ActivateRows(ctx, f, gating, x, {weight, Tensor(), Tensor()});
}

}  // namespace tessera
