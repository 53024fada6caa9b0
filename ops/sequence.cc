#include "ops/sequence.h"

#include "kernels/layout/document_starts.h"

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

}  // namespace tessera
