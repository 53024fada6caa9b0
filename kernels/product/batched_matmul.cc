#include "kernels/product/batched_matmul.h"

#include "core/parallel.h"
#include "kernels/cpu/gemm.h"

namespace tessera::TESSERA_ISA {
namespace {

// Multiply-adds from which a task of its own pays.
constexpr int64_t kTask = 1 << 17;

template <class Pointer>
void Move(Pointer* data, DType t, int64_t elements) {
  *data = const_cast<char*>(static_cast<const char*>(*data)) + elements * SizeOf(t);
}

GemmArgs ProductOf(const Batch& batch, int64_t group) {
  GemmArgs p{batch.product, batch.scale, batch.lower};
  Move(&p.a.data, p.a.dtype, batch.OffsetOf(batch.a, group));
  Move(&p.b.data, p.b.dtype, batch.OffsetOf(batch.b, group));
  Move(&p.c.data, p.c.dtype, batch.OffsetOf(batch.c, group));
  return p;
}

// All blocks of all groups are one list, cut by shape alone: many groups fill the threads, a few
// are shared between them.
void Run(const Batch& batch) {
  const MatmulArgs& p = batch.product;
  if (p.M == 0 || p.N == 0 || batch.groups() == 0) return;
  const int64_t blocks = BlockCount(ProductOf(batch, 0), batch.groups());
  const int64_t grain = blocks > 1 ? 1 : 1 + kTask / (p.M * p.N * (p.K + 1));
  ParallelRanges(batch.groups() * blocks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      RunBlock(ProductOf(batch, i / blocks), batch.groups(), i % blocks);
  });
}

template <class Args>
void BatchedMatmul(const Args& a) {
  Run(ValuesOf(a));
}
template <class Args>
void BatchedMatmulGrad(const Gradient<Args>& g) {
  if (g.d.a) Run(GradientOfA(g.forward, g.d));
  if (g.d.b) Run(GradientOfB(g.forward, g.d));
}

}  // namespace

// TESSERA_BATCHED(A, B, C): factors and result of these types.
#define TESSERA_BATCHED(...)                                       \
  template <>                                                      \
  void Run(const BatchedMatmulArgs<__VA_ARGS__>& args) {           \
    BatchedMatmul(args);                                           \
  }                                                                \
  template <>                                                      \
  void Run(const Gradient<BatchedMatmulArgs<__VA_ARGS__>>& args) { \
    BatchedMatmulGrad(args);                                       \
  }
TESSERA_BATCHED(float, float, float)
TESSERA_BATCHED(float, float, bf16)
TESSERA_BATCHED(float, bf16, float)
TESSERA_BATCHED(float, bf16, bf16)
TESSERA_BATCHED(bf16, float, float)
TESSERA_BATCHED(bf16, float, bf16)
TESSERA_BATCHED(bf16, bf16, float)
TESSERA_BATCHED(bf16, bf16, bf16)
#undef TESSERA_BATCHED

}  // namespace tessera::TESSERA_ISA
