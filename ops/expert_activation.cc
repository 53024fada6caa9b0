#include "kernels/expert_activation.h"

#include "ops/ops.h"

namespace tessera {

Var ExpertActivation(Context& ctx, Activation f, Gating gating, const Var& x,
                     const Routing& routing) {
  const bool gated = gating == Gating::kGated;
  const int64_t rows = x.rows(), F = gated ? x.dim(-1) / 2 : x.dim(-1);
  TESSERA_CHECK(rows == routing.R * routing.k && (!gated || x.dim(-1) == 2 * F),
                "%s for %ld routed rows", x.shape().ToString().c_str(), routing.R * routing.k);
  return ByDType(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const Var weight = routing.weight;
    const Tensor slot_of = routing.slot_of, offsets = routing.offsets;
    Tensor y = ctx.New({rows, F}, x.dtype());
    ctx.Run(ExpertActivationArgs<T>{.f = f,
                                    .gating = gating,
                                    .x = x.data<T>(),
                                    .x_stride = x.stride(),
                                    .weight = weight.data<float>(),
                                    .slot_of = slot_of.data<int32_t>(),
                                    .used = RowsInUse(offsets),
                                    .y = y.data<T>(),
                                    .y_stride = y.stride(),
                                    .rows = rows,
                                    .F = F});
    return ctx.Result(y, {x, weight}, [=](Context& ctx, const Tensor& dy) {
      const GradSlot dx = ctx.GradOf(x), dweight = ctx.GradOf(weight);
      ctx.Run(ExpertActivationGradArgs<T>{.f = f,
                                          .gating = gating,
                                          .x = x.data<T>(),
                                          .x_stride = x.stride(),
                                          .dy = dy.data<T>(),
                                          .dy_stride = dy.stride(),
                                          .weight = weight.data<float>(),
                                          .slot_of = slot_of.data<int32_t>(),
                                          .used = RowsInUse(offsets),
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

}  // namespace tessera
