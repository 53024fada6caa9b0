#include "kernels/cuda/grid.h"
#include "kernels/cuda/product.h"
#include "kernels/cuda/reduce.h"
#include "kernels/product/matmul.h"

namespace tessera::TESSERA_DEVICE {
namespace {

// What becomes of a sum.
__device__ __forceinline__ void Finish(const MatmulArgs& m, int64_t i, int64_t j, float v) {
  if (m.row_scale != nullptr) v *= m.row_scale[i];
  if (m.bias != nullptr) v += m.bias[j];
  Put(m.c, i, j, v);
}

__global__ void __launch_bounds__(kProductThreads) FewRowsKernel(Side a, Side b, MatmulArgs m) {
  RowProduct(a, b, m.M, m.N, m.K, [&](int64_t i, int64_t j, float v) { Finish(m, i, j, v); });
}

// Block (i, j) computes rows [64 i, 64 i + 64) and columns [64 j, 64 j + 64).
template <Precision P, bool kAOuter, bool kBOuter>
__global__ void __launch_bounds__(kProductThreads) MatmulKernel(Side a, Side b, MatmulArgs m) {
  TileProduct<P, kAOuter, kBOuter>(a, b, int64_t{blockIdx.x} * kTile, m.M,
                                   int64_t{blockIdx.y} * kTile, m.N, 0, m.K,
                                   [&](int64_t i, int64_t j, float v) { Finish(m, i, j, v); });
}

void Matmul(const MatmulArgs& m) {
  if (m.M == 0 || m.N == 0) return;
  const Side a = SideOf(m.a), b = SideOf(m.b);
  const bool a_outer = m.a.order == Order::kPlain, b_outer = m.b.order == Order::kTransposed;
  if (m.few_rows())
    return Launch(FewRowsKernel, FewRowsGrid(m.M, m.N), dim3{kProductThreads}, 0, a, b, m);
  if (LibraryProduct(m)) return;
  const dim3 grid{static_cast<unsigned>(CeilDivide(m.M, kTile)),
                  static_cast<unsigned>(CeilDivide(m.N, kTile))};
  ByProduct(m.precision, a_outer, b_outer, [&](auto p, auto outer_a, auto outer_b) {
    Launch(MatmulKernel<p.value, outer_a.value, outer_b.value>, grid, dim3{kProductThreads}, 0, a,
           b, m);
  });
}

// Block (i, p): thread c sums column 256 i + c of the p-th kCudaRows rows, in order.
template <class T>
__global__ void __launch_bounds__(256) ColumnSumPart(ColumnSumArgs<T> a, float* partial) {
  const GridPlace place = PlaceInGrid((a.C + 255) / 256, (a.rows + a.kCudaRows - 1) / a.kCudaRows);
  const int64_t columns = place.x, part = place.y;
  const int64_t c = columns * 256 + threadIdx.x;
  if (c >= a.C) return;
  const int64_t end = part * a.kCudaRows + a.kCudaRows;
  float sum = 0;
  for (int64_t r = part * a.kCudaRows; r < end && r < a.rows; ++r)
    sum += ToFloat(a.x[r * a.x_stride + c]);
  partial[part * a.C + c] = sum;
}

template <class T>
void ColumnSum(const ColumnSumArgs<T>& a) {
  const int64_t parts = CeilDivide(a.rows, a.kCudaRows);
  const Scratch scratch(a.CudaScratch());
  float* const partial = scratch.floats();
  if (parts > 0)
    Launch(ColumnSumPart<T>, FoldedGrid(CeilDivide(a.C, 256), parts, 1), dim3{256}, 0, a, partial);
  LaunchSumParts(partial, parts, a.C, a.C, a.y, a.mode);
}

}  // namespace

TESSERA_DEVICE_KERNEL_OF(MatmulArgs, Matmul)
TESSERA_DEVICE_KERNEL(ColumnSum)

}  // namespace tessera::TESSERA_DEVICE
