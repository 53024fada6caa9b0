#include "kernels/product/matmul.h"

#include "core/parallel.h"
#include "kernels/cpu/gemm.h"

namespace tessera::TESSERA_ISA {
namespace {

void Matmul(const MatmulArgs& args) {
  if (args.M == 0 || args.N == 0) return;
  const GemmArgs product{args};
  ParallelFor(BlockCount(product, 1), [&](int64_t block) { RunBlock(product, 1, block); });
}

template <class T>
void ColumnSum(const ColumnSumArgs<T>& a) {
  ParallelRanges(a.C, 64, [&](int64_t begin, int64_t end) {
    SumColumns(a.x + begin, a.x_stride, a.rows, end - begin, a.mode, a.y + begin);
  });
}

}  // namespace

TESSERA_KERNEL_OF(MatmulArgs, Matmul)
TESSERA_KERNEL(ColumnSum)

}  // namespace tessera::TESSERA_ISA
