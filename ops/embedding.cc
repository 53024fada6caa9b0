#include "kernels/rows/embedding.h"

#include "ops/dense.h"
#include "ops/ends.h"

namespace tessera {

Var Embedding(Context& ctx, const Tensor& tokens, const Var& table) {
  const int64_t B = tokens.dim(0), T = tokens.dim(1), V = table.dim(0), D = table.dim(1);
  return ByDType(ctx.compute, [&](auto tag) {
    using E = decltype(tag);
    Tensor y = ctx.New({B, T, D}, ctx.compute);
    ctx.Run(EmbeddingArgs<E>{.token = tokens.data<int32_t>(),
                             .table = Dense(table),
                             .y = y.data<E>(),
                             .y_stride = D,
                             .rows = B * T,
                             .V = V,
                             .D = D});
    return ctx.Result(y, {table}, [=, to_table = table.grad()](Context& ctx, const Tensor& dy) {
      const GradSlot dtable = ctx.GradOf(to_table);
      ctx.Run(EmbeddingGradArgs<E>{.token = tokens.data<int32_t>(),
                                   .dy = dy.data<E>(),
                                   .dy_stride = dy.stride(),
                                   .dtable = dtable.data<float>(),
                                   .dtable_mode = dtable.mode,
                                   .rows = B * T,
                                   .V = V,
                                   .D = D});
    });
  });
}

}  // namespace tessera
