#include "kernels/rows/embedding.h"

#include "ops/apply.h"
#include "ops/ends.h"

namespace tessera {

Var Embedding(Context& ctx, const Tensor& tokens, const Var& table) {
  return ByDType(ctx.compute, [&](auto tag) {
    const EmbeddingArgs<decltype(tag)> args{
        .B = tokens.dim(0), .T = tokens.dim(1), .V = table.dim(0), .D = table.dim(1)};
    return Apply(ctx, args, {table}, {tokens})[0];
  });
}

}  // namespace tessera
