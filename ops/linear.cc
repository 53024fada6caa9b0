#include "kernels/product/grouped_matmul.h"
#include "kernels/product/matmul.h"
#include "ops/dense.h"
#include "ops/product.h"
#include "ops/product_args.h"

namespace tessera {
namespace {

void ColumnSum(Context& ctx, const Tensor& x, const GradSlot& y) {
  const auto run = [&](auto* data) {
    using T = std::remove_pointer_t<decltype(data)>;
    ctx.Run(ColumnSumArgs<T>{.x = data,
                             .x_stride = x.stride(),
                             .y = y.data<float>(),
                             .mode = y.mode,
                             .rows = x.rows(),
                             .C = x.dim(-1)});
  };
  x.dtype() == DType::kF32 ? run(x.data<float>()) : run(x.data<bf16>());
}

void GroupedColumnSum(Context& ctx, const Tensor& x, const Tensor& offsets, const GradSlot& y) {
  const auto run = [&](auto* data) {
    using T = std::remove_pointer_t<decltype(data)>;
    ctx.Run(GroupedColumnSumArgs<T>{.x = data,
                                    .x_stride = x.stride(),
                                    .y = y.data<float>(),
                                    .mode = y.mode,
                                    .offsets = offsets.data<int32_t>(),
                                    .rows = x.rows(),
                                    .E = offsets.elements() - 1,
                                    .C = x.dim(-1)});
  };
  x.dtype() == DType::kF32 ? run(x.data<float>()) : run(x.data<bf16>());
}

}  // namespace

Var Linear(Context& ctx, const Var& x, const Var& weight, const Var& bias) {
  const int64_t M = x.rows(), N = weight.dim(0), K = weight.dim(1);
  TESSERA_CHECK(weight.shape().rank() == 2 && x.dim(-1) == K, "a weight of %s for an input of %s",
                weight.shape().ToString().c_str(), x.shape().ToString().c_str());
  TESSERA_CHECK(!bias.defined() || bias.value().elements() == N, "a bias of %s for %ld outputs",
                bias.shape().ToString().c_str(), N);
  Shape shape = x.shape();
  shape.Set(-1, N);
  const Precision precision = PrecisionOf(x.dtype());
  Tensor y = ctx.New(shape, x.dtype());
  ctx.Run(MatmulArgs{.a = FactorOf(x.value()),
                     .b = FactorOf(weight.value(), Order::kTransposed),
                     .c = ProductOf(y),
                     .bias = Dense(bias),
                     .M = M,
                     .N = N,
                     .K = K,
                     .precision = precision});
  // x itself is needed for the weight's gradient only.
  const Tensor kept = weight.grad() != nullptr ? x.value() : Tensor();
  return ctx.Result(y, {x, weight, bias}, [=, to_x = x.grad()](Context& ctx, const Tensor& dy) {
    if (const GradSlot dx = ctx.GradOf(to_x); dx.wanted())
      ctx.Run(MatmulArgs{.a = FactorOf(dy),
                         .b = FactorOf(weight.value()),
                         .c = ProductOf(dx.tensor, dx.mode),
                         .M = M,
                         .N = K,
                         .K = N,
                         .precision = precision});
    if (const GradSlot dw = ctx.GradOf(weight); dw.wanted())
      ctx.Run(MatmulArgs{.a = FactorOf(dy, Order::kTransposed),
                         .b = FactorOf(kept),
                         .c = ProductOf(dw.tensor, dw.mode),
                         .M = N,
                         .N = K,
                         .K = M,
                         .precision = precision});
    if (const GradSlot db = ctx.GradOf(bias); db.wanted()) ColumnSum(ctx, dy, db);
  });
}

Var GroupedLinear(Context& ctx, const Var& x, const Var& weight, const Tensor& offsets,
                  const Var& bias) {
  const int64_t rows = x.rows(), E = weight.dim(0), N = weight.dim(1), K = weight.dim(2);
  TESSERA_CHECK(x.dim(-1) == K && weight.value().contiguous(),
                "weights of %s, rows %ld apart, for an input of %s",
                weight.shape().ToString().c_str(), weight.stride(), x.shape().ToString().c_str());
  TESSERA_CHECK(offsets.elements() == E + 1, "%ld offsets for %ld experts", offsets.elements(), E);
  TESSERA_CHECK(!bias.defined() || bias.value().elements() == E * N,
                "biases of %s for weights of %s", bias.shape().ToString().c_str(),
                weight.shape().ToString().c_str());
  Shape shape = x.shape();
  shape.Set(-1, N);
  const Precision precision = PrecisionOf(x.dtype());
  Tensor y = ctx.New(shape, x.dtype());
  ctx.Run(GroupedMatmulArgs{.a = FactorOf(x.value()),
                            .b = FactorOf(weight.value(), Order::kTransposed),
                            .b_group_stride = N * K,
                            .c = ProductOf(y),
                            .bias = Dense(bias),
                            .offsets = offsets.data<int32_t>(),
                            .rows = rows,
                            .E = E,
                            .N = N,
                            .K = K,
                            .precision = precision});
  const Tensor kept = weight.grad() != nullptr ? x.value() : Tensor();
  return ctx.Result(y, {x, weight, bias}, [=, to_x = x.grad()](Context& ctx, const Tensor& dy) {
    if (const GradSlot dx = ctx.GradOf(to_x); dx.wanted())
      ctx.Run(GroupedMatmulArgs{.a = FactorOf(dy),
                                .b = FactorOf(weight.value()),
                                .b_group_stride = N * K,
                                .c = ProductOf(dx.tensor, dx.mode),
                                .offsets = offsets.data<int32_t>(),
                                .rows = rows,
                                .E = E,
                                .N = K,
                                .K = N,
                                .precision = precision});
    if (const GradSlot dw = ctx.GradOf(weight); dw.wanted())
      ctx.Run(GroupedWeightGradArgs{.dy = FactorOf(dy),
                                    .x = FactorOf(kept),
                                    .dw = ProductOf(dw.tensor, dw.mode),
                                    .dw_group_stride = N * K,
                                    .offsets = offsets.data<int32_t>(),
                                    .rows = rows,
                                    .E = E,
                                    .N = N,
                                    .K = K,
                                    .precision = precision});
    if (const GradSlot db = ctx.GradOf(bias); db.wanted()) GroupedColumnSum(ctx, dy, offsets, db);
  });
}

}  // namespace tessera
