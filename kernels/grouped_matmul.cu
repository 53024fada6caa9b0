#include "kernels/cuda/product.h"
#include "kernels/cuda/reduce.h"
#include "kernels/grouped_matmul.h"

namespace tessera::TESSERA_DEVICE {
namespace {

// What becomes of a sum of expert e.
__device__ __forceinline__ void Finish(const GroupedMatmulArgs& g, int64_t e, int64_t i, int64_t j,
                                       float v) {
  if (g.row_scale != nullptr) v *= g.row_scale[i];
  if (g.bias != nullptr) v += g.bias[e * g.N + j];
  Put(g.c, i, j, v);
}

// How many rows each expert has is known on the device alone, so the grid is as large as it could
// have to be: a tile for every 64 rows and one more an expert. Block i looks for the i-th tile of
// all experts and leaves if there is none, the whole block together.
template <Precision P, bool kBOuter>
__global__ void __launch_bounds__(kProductThreads)
    GroupedMatmulKernel(Side a, Side b, GroupedMatmulArgs g) {
  int64_t tile = blockIdx.x, e = 0;
  for (; e < g.E; ++e) {
    const int64_t tiles = (g.offsets[e + 1] - g.offsets[e] + kTile - 1) / kTile;
    if (tile < tiles) break;
    tile -= tiles;
  }
  if (e == g.E) return;
  TileProduct<P, true, kBOuter>(a, Moved(b, e * g.b_group_stride), g.offsets[e] + tile * kTile,
                                g.offsets[e + 1], int64_t{blockIdx.y} * kTile, g.N, 0, g.K,
                                [&](int64_t i, int64_t j, float v) { Finish(g, e, i, j, v); });
}

__global__ void __launch_bounds__(kProductThreads)
    FewRowsKernel(Side a, Side b, GroupedMatmulArgs g) {
  const int64_t row = blockIdx.x % g.rows;
  int64_t e = 0;
  while (e < g.E && row >= g.offsets[e + 1]) ++e;
  if (e == g.E) return;
  RowProduct(a, Moved(b, e * g.b_group_stride), g.rows, g.N, g.K,
             [&](int64_t i, int64_t j, float v) { Finish(g, e, i, j, v); });
}

void GroupedMatmul(const GroupedMatmulArgs& g) {
  if (g.rows == 0 || g.N == 0) return;
  const Side a = SideOf(g.a), b = SideOf(g.b);
  const bool b_outer = g.b.order == Order::kTransposed;
  if (g.rows <= kFewRows && b_outer)
    return Launch(FewRowsKernel, FewRowsGrid(g.rows, g.N), dim3{kProductThreads}, 0, a, b, g);
  const dim3 grid{static_cast<unsigned>(CeilDivide(g.rows, kTile) + g.E),
                  static_cast<unsigned>(CeilDivide(g.N, kTile))};
  ByProduct(g.precision, true, b_outer, [&](auto p, auto, auto outer_b) {
    Launch(GroupedMatmulKernel<p.value, outer_b.value>, grid, dim3{kProductThreads}, 0, a, b, g);
  });
}

// Block (i, j, e): a tile of dW_e; the inner index runs over the expert's rows.
template <Precision P>
__global__ void __launch_bounds__(kProductThreads)
    GroupedWeightGradKernel(Side dy, Side x, GroupedWeightGradArgs g) {
  const int64_t e = blockIdx.z;
  Product dw = g.dw;
  dw.data = static_cast<char*>(dw.data) + e * g.dw_group_stride * (dw.dtype == DType::kF32 ? 4 : 2);
  TileProduct<P, false, false>(dy, x, int64_t{blockIdx.x} * kTile, g.N, int64_t{blockIdx.y} * kTile,
                               g.K, g.offsets[e], g.offsets[e + 1],
                               [&](int64_t i, int64_t j, float v) { Put(dw, i, j, v); });
}

void GroupedWeightGrad(const GroupedWeightGradArgs& g) {
  const dim3 grid{static_cast<unsigned>(CeilDivide(g.N, kTile)),
                  static_cast<unsigned>(CeilDivide(g.K, kTile)), static_cast<unsigned>(g.E)};
  if (g.precision == Precision::kBF16)
    Launch(GroupedWeightGradKernel<Precision::kBF16>, grid, dim3{kProductThreads}, 0, SideOf(g.dy),
           SideOf(g.x), g);
  else
    Launch(GroupedWeightGradKernel<Precision::kF32>, grid, dim3{kProductThreads}, 0, SideOf(g.dy),
           SideOf(g.x), g);
}

// Block (i, e): thread c sums column 256 i + c of the expert's rows, in order.
template <class T>
__global__ void __launch_bounds__(256) GroupedColumnSumKernel(GroupedColumnSumArgs<T> a) {
  const int64_t c = int64_t{blockIdx.x} * 256 + threadIdx.x, e = blockIdx.y;
  if (c >= a.C) return;
  float sum = 0;
  for (int64_t r = a.offsets[e]; r < a.offsets[e + 1]; ++r) sum += ToFloat(a.x[r * a.x_stride + c]);
  PutGrad(a.y + e * a.C + c, sum, a.mode);
}

template <class T>
void GroupedColumnSum(const GroupedColumnSumArgs<T>& a) {
  Launch(GroupedColumnSumKernel<T>,
         dim3{static_cast<unsigned>(CeilDivide(a.C, 256)), static_cast<unsigned>(a.E)}, dim3{256},
         0, a);
}

}  // namespace

TESSERA_DEVICE_KERNEL_OF(GroupedMatmulArgs, GroupedMatmul)
TESSERA_DEVICE_KERNEL_OF(GroupedWeightGradArgs, GroupedWeightGrad)
TESSERA_DEVICE_KERNEL(GroupedColumnSum)

}  // namespace tessera::TESSERA_DEVICE
