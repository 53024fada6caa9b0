#include "kernels/cuda/product.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/rounded.h"
#include "kernels/cuda/warpgroup_product.h"
#include "kernels/product/grouped_matmul.h"

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
// have to be: a tile for every `height` rows and one more an expert. Block i looks for the i-th
// tile of all experts and leaves if there is none, the whole block together.
struct ExpertTile {
  int64_t e, first;  // e = E: none
};
__device__ __forceinline__ ExpertTile FindTile(const GroupedMatmulArgs& g, int height) {
  int64_t tile = blockIdx.x, e = 0;
  for (; e < g.E; ++e) {
    const int64_t tiles = (g.offsets[e + 1] - g.offsets[e] + height - 1) / height;
    if (tile < tiles) return {e, g.offsets[e] + tile * height};
    tile -= tiles;
  }
  return {e, 0};
}
unsigned TileCount(const GroupedMatmulArgs& g, int height) {
  return static_cast<unsigned>(CeilDivide(g.rows, height) + g.E);
}

template <Precision P, bool kBOuter>
__global__ void __launch_bounds__(kProductThreads)
    GroupedMatmulKernel(Side a, Side b, GroupedMatmulArgs g) {
  const auto [e, first] = FindTile(g, kTile);
  if (e == g.E) return;
  TileProduct<P, true, kBOuter>(
      a, Moved(b, e * g.b_group_stride), first, g.offsets[e + 1], int64_t{blockIdx.y} * kTile, g.N,
      0, g.K, [&, e = e](int64_t i, int64_t j, float v) { Finish(g, e, i, j, v); });
}

// The same by warpgroups.
template <bool kBByK>
__global__ void __launch_bounds__(kWgThreads, 1)
    WarpgroupMatmulKernel(TESSERA_GRID_CONSTANT TensorMap a, TESSERA_GRID_CONSTANT TensorMap b,
                          GroupedMatmulArgs g) {
  const auto [e, first] = FindTile(g, kWgTile);
  if (e == g.E) return;
  const int64_t column = int64_t{blockIdx.y} * kWgTile, end = g.offsets[e + 1];
  WarpgroupProduct<false, kBByK, false>(a, b, {first, 0, 0}, {column, 0, e}, g.K,
                                        [&, e = e, first = first](int row, int j, float v) {
                                          if (first + row < end && column + j < g.N)
                                            Finish(g, e, first + row, column + j, v);
                                        });
}

bool ByWarpgroups(const GroupedMatmulArgs& g) {
  const int64_t rows = g.b.order == Order::kPlain ? g.K : g.N;
  return g.precision == Precision::kBF16 && g.K > 0 && g.E > 0 && UsesWgmma(g.prefers_wgmma()) &&
         g.b_group_stride == rows * g.b.stride;
}
void WarpgroupMatmul(const GroupedMatmulArgs& g) {
  Stored a = g.stored_a(), b = g.stored_b();
  const Scratch scratch(g.CudaScratch());
  MakeReady(&b, scratch.floats() + a.CopyFloats());
  MakeReady(&a, scratch.floats(), g.offsets + g.E);
  const auto map = [](const Stored& s, int64_t groups) {
    const int64_t rows = s.rows / groups;
    return MakeTensorMap(static_cast<const bf16*>(s.factor.data), s.columns, rows, groups,
                         s.factor.stride, rows * s.factor.stride, 64);
  };
  const dim3 grid{TileCount(g, kWgTile), static_cast<unsigned>(CeilDivide(g.N, kWgTile))};
  const auto kernel =
      g.b.order == Order::kPlain ? WarpgroupMatmulKernel<true> : WarpgroupMatmulKernel<false>;
  Launch(kernel, grid, dim3{kWgThreads}, kWgSharedBytes, map(a, 1), map(b, g.E), g);
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
  if (g.few_rows())
    return Launch(FewRowsKernel, FewRowsGrid(g.rows, g.N), dim3{kProductThreads}, 0, a, b, g);
  if (ByWarpgroups(g)) return WarpgroupMatmul(g);
  const dim3 grid{TileCount(g, kTile), static_cast<unsigned>(CeilDivide(g.N, kTile))};
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

// The same by warpgroups: both factors are stored by rows of what is summed over.
__global__ void __launch_bounds__(kWgThreads, 1)
    WarpgroupWeightGradKernel(TESSERA_GRID_CONSTANT TensorMap dy, TESSERA_GRID_CONSTANT TensorMap x,
                              GroupedWeightGradArgs g) {
  const int64_t e = blockIdx.z, n = int64_t{blockIdx.x} * kWgTile,
                k = int64_t{blockIdx.y} * kWgTile;
  Product dw = g.dw;
  dw.data = static_cast<char*>(dw.data) + e * g.dw_group_stride * (dw.dtype == DType::kF32 ? 4 : 2);
  const int64_t first = g.offsets[e];
  WarpgroupProduct<true, true, true>(dy, x, {n, first, 0}, {k, first, 0}, g.offsets[e + 1] - first,
                                     [&](int i, int j, float v) {
                                       if (n + i < g.N && k + j < g.K) Put(dw, n + i, k + j, v);
                                     });
}

void WarpgroupWeightGrad(const GroupedWeightGradArgs& g) {
  Stored dy = g.stored_dy(), x = g.stored_x();
  const Scratch scratch(g.CudaScratch());
  MakeReady(&x, scratch.floats() + dy.CopyFloats(), g.offsets + g.E);
  MakeReady(&dy, scratch.floats(), g.offsets + g.E);
  const auto map = [](const Stored& s) {
    return MakeTensorMap(static_cast<const bf16*>(s.factor.data), s.columns, s.rows, 1,
                         s.factor.stride, s.rows * s.factor.stride, 64);
  };
  Launch(WarpgroupWeightGradKernel,
         dim3{static_cast<unsigned>(CeilDivide(g.N, kWgTile)),
              static_cast<unsigned>(CeilDivide(g.K, kWgTile)), static_cast<unsigned>(g.E)},
         dim3{kWgThreads}, kWgSharedBytes, map(dy), map(x), g);
}

void GroupedWeightGrad(const GroupedWeightGradArgs& g) {
  if (g.precision == Precision::kBF16 && g.rows > 0 && UsesWgmma(g.prefers_wgmma()))
    return WarpgroupWeightGrad(g);
  const dim3 grid{static_cast<unsigned>(CeilDivide(g.N, kTile)),
                  static_cast<unsigned>(CeilDivide(g.K, kTile)), static_cast<unsigned>(g.E)};
  if (g.precision == Precision::kBF16)
    Launch(GroupedWeightGradKernel<Precision::kBF16>, grid, dim3{kProductThreads}, 0, SideOf(g.dy),
           SideOf(g.x), g);
  else
    Launch(GroupedWeightGradKernel<Precision::kF32>, grid, dim3{kProductThreads}, 0, SideOf(g.dy),
           SideOf(g.x), g);
}

// Block (i, e): of column 32 i + c, thread (c, p) sums every kParts-th of the expert's rows, and
// the first adds up the parts.
constexpr int kParts = 32;
template <class T>
__global__ void __launch_bounds__(32 * kParts) GroupedColumnSumKernel(GroupedColumnSumArgs<T> a) {
  TESSERA_SHARED(float[kParts][32], part);
  const int64_t c = int64_t{blockIdx.x} * 32 + threadIdx.x, e = blockIdx.y;
  float sum = 0;
#pragma unroll 4
  for (int64_t r = a.offsets[e] + threadIdx.y; r < a.offsets[e + 1]; r += kParts)
    if (c < a.C) sum += ToFloat(a.x[r * a.x_stride + c]);
  part[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || c >= a.C) return;
  sum = 0;
  for (const auto& row : part) sum += row[threadIdx.x];
  PutGrad(a.y + e * a.C + c, sum, a.mode);
}

template <class T>
void GroupedColumnSum(const GroupedColumnSumArgs<T>& a) {
  Launch(GroupedColumnSumKernel<T>,
         dim3{static_cast<unsigned>(CeilDivide(a.C, 32)), static_cast<unsigned>(a.E)},
         dim3{32, kParts}, 0, a);
}

}  // namespace

TESSERA_DEVICE_KERNEL_OF(GroupedMatmulArgs, GroupedMatmul)
TESSERA_DEVICE_KERNEL_OF(GroupedWeightGradArgs, GroupedWeightGrad)
TESSERA_DEVICE_KERNEL(GroupedColumnSum)

}  // namespace tessera::TESSERA_DEVICE
