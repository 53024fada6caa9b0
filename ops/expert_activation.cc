#include "kernels/experts/expert_activation.h"

#include "ops/experts.h"

namespace tessera {

namespace {

// Undefined: no weights, no routing.
struct Rows {
  Var weight;
  Tensor slot_of, offsets;
};

Var ActivateRows(Context& ctx, Activation f, Gating gating, const Var& x, const Shape& shape,
                 const Rows& by) {
  const int64_t rows = x.rows(), F = shape[-1];
  const bool gated = gating == Gating::kGated;
  TESSERA_CHECK(x.dim(-1) == (gated ? 2 * F : F), "a %s activation of %s",
                gated ? "gated" : "plain", x.shape().ToString().c_str());
  const RowWeights weights = by.weight.defined() ? RowWeights::kGiven : RowWeights::kOnes;
  return ByDType(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    Tensor y = ctx.New(shape, x.dtype());
    ctx.Run(ExpertActivationArgs<T>{.f = f,
                                    .gating = gating,
                                    .x = x.data<T>(),
                                    .x_stride = x.stride(),
                                    .weights = weights,
                                    .weight = by.weight.data<float>(),
                                    .slot_of = by.slot_of.data<int32_t>(),
                                    .used = RowsInUse(by.offsets),
                                    .y = y.data<T>(),
                                    .y_stride = y.stride(),
                                    .rows = rows,
                                    .F = F});
    return ctx.Result(y, {x, by.weight}, [=](Context& ctx, const Tensor& dy) {
      const GradSlot dx = ctx.GradOf(x), dweight = ctx.GradOf(by.weight);
      ctx.Run(ExpertActivationGradArgs<T>{.f = f,
                                          .gating = gating,
                                          .x = x.data<T>(),
                                          .x_stride = x.stride(),
                                          .dy = dy.data<T>(),
                                          .dy_stride = dy.stride(),
                                          .weights = weights,
                                          .weight = by.weight.data<float>(),
                                          .slot_of = by.slot_of.data<int32_t>(),
                                          .used = RowsInUse(by.offsets),
                                          .dx = dx.data<T>(),
                                          .dx_stride = dx.stride(),
                                          .dx_mode = dx.mode,
                                          .dweight = dweight.data<float>(),
                                          .dweight_mode = dweight.mode,
                                          .rows = rows,
                                          .F = F});
    });
  });
}

Shape HiddenShape(const Var& x, Gating gating) {
  Shape shape = x.shape();
  if (gating == Gating::kGated) shape.Set(-1, x.dim(-1) / 2);
  return shape;
}

}  // namespace

Var ExpertActivation(Context& ctx, Activation f, Gating gating, const Var& x, const Routing& r) {
  TESSERA_CHECK(x.rows() == r.R * r.k, "%s for %ld routed rows", x.shape().ToString().c_str(),
                r.R * r.k);
  return ActivateRows(ctx, f, gating, x, HiddenShape(x, gating), {r.weight, r.slot_of, r.offsets});
}

Var WeightedActivation(Context& ctx, Activation f, Gating gating, const Var& x, const Var& weight) {
  TESSERA_CHECK(!weight.defined() || (weight.value().elements() == x.rows() &&
                                      weight.value().contiguous() && weight.dtype() == DType::kF32),
                "weights of %s for %s", weight.shape().ToString().c_str(),
                x.shape().ToString().c_str());
  return ActivateRows(ctx, f, gating, x, HiddenShape(x, gating), {weight, Tensor(), Tensor()});
}

}  // namespace tessera
