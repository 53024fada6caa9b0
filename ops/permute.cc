#include "kernels/layout/permute.h"

#include "kernels/product/grouped_matmul.h"
#include "ops/experts.h"
#include "ops/product_args.h"

namespace tessera {
namespace {

// An undefined weight is 1.
void RunCombine(Context& ctx, const Tensor& x, const Tensor& weight, const Tensor& row_of,
                const Tensor& y, Grad mode) {
  ByDType(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    ctx.Run(
        CombineArgs<T>{.x = x.data<T>(),
                       .x_stride = x.stride(),
                       .weights = weight.defined() ? CombineWeights::kGiven : CombineWeights::kOnes,
                       .weight = weight.data<float>(),
                       .row_of = row_of.data<int32_t>(),
                       .y = y.data<T>(),
                       .y_stride = y.stride(),
                       .mode = mode,
                       .R = y.rows(),
                       .k = row_of.dim(1),
                       .D = x.dim(-1)});
  });
}

// The maps of a routing that the products' derivatives need.
struct Maps {
  Tensor offsets, row_of, token_of;
};

// Rows of x, read through the tokens of the routed rows.
Factor Gathered(const Tensor& x, const Maps& maps) {
  Factor f = FactorOf(x);
  f.rows = maps.token_of.data<int32_t>();
  return f;
}

// y[r] = a[r] W_e, or W_e^T, for the rows of each expert e.
void RunExperts(Context& ctx, const Factor& a, const Tensor& weight, Order order, const Maps& maps,
                const Tensor& y, Grad mode = Grad::kOverwrite) {
  const bool transposed = order == Order::kTransposed;
  ctx.Run(GroupedMatmulArgs{.a = a,
                            .b = FactorOf(weight, order),
                            .b_group_stride = weight.dim(1) * weight.dim(2),
                            .c = ProductOf(y, mode),
                            .offsets = maps.offsets.data<int32_t>(),
                            .rows = maps.token_of.elements(),
                            .E = weight.dim(0),
                            .N = weight.dim(transposed ? 1 : 2),
                            .K = weight.dim(transposed ? 2 : 1),
                            .precision = PrecisionOf(a.dtype)});
}

void RunWeightGrad(Context& ctx, const Factor& dy, const Factor& x, const Maps& maps,
                   const GradSlot& dw) {
  const Tensor& w = dw.tensor;
  ctx.Run(GroupedWeightGradArgs{.dy = dy,
                                .x = x,
                                .dw = ProductOf(w, dw.mode),
                                .dw_group_stride = w.dim(1) * w.dim(2),
                                .offsets = maps.offsets.data<int32_t>(),
                                .rows = maps.token_of.elements(),
                                .E = w.dim(0),
                                .N = w.dim(1),
                                .K = w.dim(2),
                                .precision = PrecisionOf(x.dtype)});
}

void CheckWeight(const Var& x, const Var& weight, const Routing& r) {
  TESSERA_CHECK(weight.shape().rank() == 3 && weight.dim(0) == r.E && weight.dim(2) == x.dim(-1) &&
                    weight.value().contiguous(),
                "weights of %s, rows %ld apart, for %ld experts and an input of %s",
                weight.shape().ToString().c_str(), weight.stride(), r.E,
                x.shape().ToString().c_str());
}

}  // namespace

Var Permute(Context& ctx, const Var& x, const Routing& r) {
  TESSERA_CHECK(x.rows() == r.R, "%s for %ld routed tokens", x.shape().ToString().c_str(), r.R);
  const int64_t rows = r.R * r.k, D = x.dim(-1);
  Tensor y = ctx.New({rows, D}, x.dtype());
  ByDType(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    ctx.Run(PermuteArgs<T>{.x = x.data<T>(),
                           .x_stride = x.stride(),
                           .token_of = r.token_of.data<int32_t>(),
                           .used = RowsInUse(r.offsets),
                           .y = y.data<T>(),
                           .y_stride = y.stride(),
                           .R = r.R,
                           .rows = rows,
                           .D = D});
  });
  return ctx.Result(y, {x}, [to_x = x.grad(), row_of = r.row_of](Context& ctx, const Tensor& dy) {
    const GradSlot dx = ctx.GradOf(to_x);
    RunCombine(ctx, dy, Tensor(), row_of, dx.tensor, dx.mode);
  });
}

Var Combine(Context& ctx, const Var& x, const Routing& r, const Shape& shape) {
  const int64_t rows = r.R * r.k, D = x.dim(-1);
  TESSERA_CHECK(x.rows() == rows && shape.elements() == r.R * D, "%s to %s for %ld tokens",
                x.shape().ToString().c_str(), shape.ToString().c_str(), r.R);
  Tensor y = ctx.New(shape, x.dtype());
  RunCombine(ctx, x.value(), r.weight.value(), r.row_of, y, Grad::kOverwrite);
  return ctx.Result(y, {x, r.weight}, [=](Context& ctx, const Tensor& dy) {
    const GradSlot dx = ctx.GradOf(x), dweight = ctx.GradOf(r.weight);
    ByDType(x.dtype(), [&](auto tag) {
      using T = decltype(tag);
      ctx.Run(CombineGradArgs<T>{.x = x.data<T>(),
                                 .x_stride = x.stride(),
                                 .weight = r.weight.data<float>(),
                                 .slot_of = r.slot_of.data<int32_t>(),
                                 .token_of = r.token_of.data<int32_t>(),
                                 .used = RowsInUse(r.offsets),
                                 .dy = dy.data<T>(),
                                 .dy_stride = dy.stride(),
                                 .dx = dx.data<T>(),
                                 .dx_stride = dx.stride(),
                                 .dx_mode = dx.mode,
                                 .dweight = dweight.data<float>(),
                                 .dweight_mode = dweight.mode,
                                 .R = r.R,
                                 .rows = rows,
                                 .D = D});
    });
  });
}

Var DispatchLinear(Context& ctx, const Var& x, const Var& weight, const Routing& r) {
  CheckWeight(x, weight, r);
  TESSERA_CHECK(x.rows() == r.R, "%s for %ld routed tokens", x.shape().ToString().c_str(), r.R);
  const Maps maps{r.offsets, r.row_of, r.token_of};
  const int64_t rows = r.R * r.k;
  Tensor y = ctx.New({rows, weight.dim(1)}, x.dtype());
  RunExperts(ctx, Gathered(x.value(), maps), weight.value(), Order::kTransposed, maps, y);
  const Tensor kept = weight.grad() != nullptr ? x.value() : Tensor();
  return ctx.Result(y, {x, weight}, [=, to_x = x.grad()](Context& ctx, const Tensor& dy) {
    if (const GradSlot dw = ctx.GradOf(weight); dw.wanted())
      RunWeightGrad(ctx, FactorOf(dy), Gathered(kept, maps), maps, dw);
    if (const GradSlot dx = ctx.GradOf(to_x); dx.wanted()) {
      const Tensor by_row = ctx.New({rows, weight.dim(2)}, dy.dtype());
      RunExperts(ctx, FactorOf(dy), weight.value(), Order::kPlain, maps, by_row);
      RunCombine(ctx, by_row, Tensor(), maps.row_of, dx.tensor, dx.mode);
    }
  });
}

Var CombineLinear(Context& ctx, const Var& x, const Var& weight, const Routing& r,
                  const Shape& shape) {
  CheckWeight(x, weight, r);
  const Maps maps{r.offsets, r.row_of, r.token_of};
  const int64_t rows = r.R * r.k, N = weight.dim(1);
  TESSERA_CHECK(x.rows() == rows && shape.elements() == r.R * N, "%s to %s for %ld tokens",
                x.shape().ToString().c_str(), shape.ToString().c_str(), r.R);
  Tensor y = ctx.New(shape, x.dtype());
  const Tensor by_row = ctx.New({rows, N}, x.dtype());
  RunExperts(ctx, FactorOf(x.value()), weight.value(), Order::kTransposed, maps, by_row);
  RunCombine(ctx, by_row, Tensor(), maps.row_of, y, Grad::kOverwrite);
  const Tensor kept = weight.grad() != nullptr ? x.value() : Tensor();
  return ctx.Result(y, {x, weight}, [=, to_x = x.grad()](Context& ctx, const Tensor& dy) {
    if (const GradSlot dw = ctx.GradOf(weight); dw.wanted())
      RunWeightGrad(ctx, Gathered(dy, maps), FactorOf(kept), maps, dw);
    if (const GradSlot dx = ctx.GradOf(to_x); dx.wanted())
      RunExperts(ctx, Gathered(dy, maps), weight.value(), Order::kPlain, maps, dx.tensor, dx.mode);
  });
}

}  // namespace tessera
