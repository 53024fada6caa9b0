#include "kernels/product/grouped_matmul.h"

#include "core/parallel.h"
#include "kernels/cpu/gemm.h"

namespace tessera::TESSERA_ISA {
namespace {

const void* At(const void* data, DType t, int64_t elements) {
  return static_cast<const char*>(data) + elements * SizeOf(t);
}

// Stored rows from `row` on.
Factor From(Factor f, int64_t row) {
  if (f.rows != nullptr) {
    f.rows += row;
  } else {
    f.data = At(f.data, f.dtype, row * f.stride);
  }
  return f;
}

GemmArgs ProductOf(const GroupedMatmulArgs& g, int64_t e) {
  const int64_t row = g.offsets[e];
  Factor b = g.b;
  b.data = At(b.data, b.dtype, e * g.b_group_stride);
  Product c = g.c;
  if (c.rows != nullptr) {
    c.rows += row;
  } else {
    c.data = const_cast<void*>(At(c.data, c.dtype, row * c.stride));
  }
  return {{.a = From(g.a, row),
           .b = b,
           .c = c,
           .bias = g.bias ? g.bias + e * g.N : nullptr,
           .row_scale = g.row_scale ? g.row_scale + row : nullptr,
           .M = g.offsets[e + 1] - row,
           .N = g.N,
           .K = g.K,
           .precision = g.precision}};
}

GemmArgs ProductOf(const GroupedWeightGradArgs& g, int64_t e) {
  const int64_t row = g.offsets[e], rows = g.offsets[e + 1] - row;
  Factor a = From(g.dy, row);
  a.order = Order::kTransposed;
  Product c = g.dw;
  c.data = const_cast<void*>(At(c.data, c.dtype, e * g.dw_group_stride));
  const bool idle = rows == 0 && c.mode == Grad::kAccumulate;
  return {{.a = a,
           .b = From(g.x, row),
           .c = c,
           .M = idle ? 0 : g.N,
           .N = g.K,
           .K = rows,
           .precision = g.precision}};
}

// The blocks of all products, one list, so that a large expert is shared between threads and small
// ones fill the gaps.
template <class Args>
void RunProducts(const Args& g) {
  auto* first = static_cast<int64_t*>(ThreadScratch((g.E + 1) * 8, 2));
  first[0] = 0;
  for (int64_t e = 0; e < g.E; ++e) {
    const GemmArgs product = ProductOf(g, e);
    first[e + 1] = first[e] + (product.M > 0 ? BlockCount(product, g.E) : 0);
  }
  ParallelFor(first[g.E], [&](int64_t block) {
    int64_t low = 0, high = g.E;  // first[low] <= block < first[high]
    while (high - low > 1) {
      const int64_t mid = (low + high) / 2;
      (first[mid] <= block ? low : high) = mid;
    }
    RunBlock(ProductOf(g, low), g.E, block - first[low]);
  });
}

void GroupedMatmul(const GroupedMatmulArgs& args) { RunProducts(args); }
void GroupedWeightGrad(const GroupedWeightGradArgs& args) { RunProducts(args); }

template <class T>
void GroupedColumnSum(const GroupedColumnSumArgs<T>& a) {
  ParallelFor(a.E, [&](int64_t e) {
    const int64_t row = a.offsets[e];
    SumColumns(a.x + row * a.x_stride, a.x_stride, a.offsets[e + 1] - row, a.C, a.mode,
               a.y + e * a.C);
  });
}

}  // namespace

TESSERA_KERNEL_OF(GroupedMatmulArgs, GroupedMatmul)
TESSERA_KERNEL_OF(GroupedWeightGradArgs, GroupedWeightGrad)
TESSERA_KERNEL(GroupedColumnSum)

}  // namespace tessera::TESSERA_ISA
