#ifndef TESSERA_OPS_PRODUCT_H_
#define TESSERA_OPS_PRODUCT_H_

#include <optional>

#include "kernels/product/matmul.h"
#include "ops/context.h"

// Matrix products. As all ops: see ops/ops.h.

namespace tessera {

// x W^T + bias: x [...,K], weight [N,K], bias [N] or undefined.
Var Linear(Context& ctx, const Var& x, const Var& weight, const Var& bias = Var());
// Rows [offsets[e], offsets[e+1]) of x through expert e: x [rows,K] sorted by expert, weight
// [E,N,K], offsets int32 [E+1], bias [E,N] or undefined. Rows from offsets[E] on are left
// undefined, in y and in the gradient of x.
Var GroupedLinear(Context& ctx, const Var& x, const Var& weight, const Tensor& offsets,
                  const Var& bias = Var());

struct BatchedMatmulOptions {
  int64_t heads = 1;
  Order a = Order::kPlain, b = Order::kPlain;
  // kResult: causal scores, 0 above the diagonal. kA, kB: what a factor holds above its diagonal
  // counts as 0, so causal scores need no zeros there.
  Lower lower = Lower::kNone;
  float alpha = 1;
  std::optional<DType> result;  // fp32 or bf16; the context's compute type by default
};
// alpha A B for each head of each sequence, of two activations: a [B,M,H*K] and b [B,K,H*N] give
// [B,M,H*N], where a transposed factor is [B,K,H*M] or [B,N,H*K]. Scores q k^T are {.b =
// Order::kTransposed}; values p v are plain. Factors of which one is bf16 are multiplied as bf16,
// sums are fp32.
Var BatchedMatmul(Context& ctx, const Var& a, const Var& b, const BatchedMatmulOptions& options);

}  // namespace tessera

#endif  // TESSERA_OPS_PRODUCT_H_
