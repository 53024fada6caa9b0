#include "kernels/cuda/grid.h"
#include "kernels/cuda/product.h"
#include "kernels/product/batched_matmul.h"

namespace tessera::TESSERA_DEVICE {
namespace {

// A factor that may be lower triangular as it is stored: what is above the diagonal is not read.
struct TriangularSide : Side {
  bool lower;
};
__device__ __forceinline__ void LoadFour(const TriangularSide& s, int64_t row, int64_t row_end,
                                         int64_t column, int64_t end, float (&v)[4]) {
  LoadFour(static_cast<const Side&>(s), row, row_end, column,
           s.lower && row + 1 < end ? row + 1 : end, v);
}

// Block (i, j, group): rows [64 i, 64 i + 64) and columns [64 j, 64 j + 64) of a group's product,
// over the part of K that a lower factor has there; of a tile above the diagonal of a lower result
// there is none. Three blocks a multiprocessor: more registers than that leaves would hide less of
// the memory's latency.
template <Precision P, bool kAOuter, bool kBOuter>
__global__ void __launch_bounds__(kProductThreads, 3) BatchedMatmulKernel(Side a, Side b, Batch g) {
  const int64_t M = g.product.M, N = g.product.N, K = g.product.K;
  const GridPlace place = PlaceInGrid((M + kTile - 1) / kTile, (N + kTile - 1) / kTile);
  const int64_t m = place.x * kTile, n = place.y * kTile, group = place.z;
  Product c = g.product.c;
  c.data = static_cast<char*>(c.data) + g.OffsetOf(g.c, group) * (c.dtype == DType::kF32 ? 4 : 2);
  const bool lower = g.lower == Lower::kResult, add = c.mode == Grad::kAccumulate;
  const auto put = [&](int64_t i, int64_t j, float sum) {
    if (lower && j > i) {
      if (!add) Put(c, i, j, 0);
      return;
    }
    Put(c, i, j, g.scale * sum);
  };
  int64_t k = 0, k_end = K;
  if (g.lower == Lower::kA) (kAOuter ? k_end : k) = m + (kAOuter ? kTile : 0);
  if (g.lower == Lower::kB) (kBOuter ? k_end : k) = n + (kBOuter ? kTile : 0);
  if (lower && n >= m + kTile) k_end = 0;
  if (k_end > K) k_end = K;
  const TriangularSide left{Moved(a, g.OffsetOf(g.a, group)), g.lower == Lower::kA};
  const TriangularSide right{Moved(b, g.OffsetOf(g.b, group)), g.lower == Lower::kB};
  TileProduct<P, kAOuter, kBOuter>(left, right, m, M, n, N, k, k_end, put);
}

void RunBatch(const Batch& g) {
  const MatmulArgs& p = g.product;
  if (p.M == 0 || p.N == 0 || g.groups() == 0) return;
  const bool a_outer = p.a.order == Order::kPlain, b_outer = p.b.order == Order::kTransposed;
  const dim3 grid = FoldedGrid(CeilDivide(p.M, kTile), CeilDivide(p.N, kTile), g.groups());
  ByProduct(p.precision, a_outer, b_outer, [&](auto precision, auto outer_a, auto outer_b) {
    Launch(BatchedMatmulKernel<precision.value, outer_a.value, outer_b.value>, grid,
           dim3{kProductThreads}, 0, SideOf(p.a), SideOf(p.b), g);
  });
}

template <class Args>
void BatchedMatmul(const Args& a) {
  RunBatch(ValuesOf(a));
}
template <class Args>
void BatchedMatmulGrad(const Gradient<Args>& g) {
  if (g.d.a) RunBatch(GradientOfA(g.forward, g.d));
  if (g.d.b) RunBatch(GradientOfB(g.forward, g.d));
}

// The kernels of factors and a result of these types.
template <class A, class B, class C>
struct Entries {
  using Args = BatchedMatmulArgs<A, B, C>;
  KernelEntry values{KernelOf<Args, BatchedMatmul<Args>>{}};
  KernelEntry gradients{KernelOf<Gradient<Args>, BatchedMatmulGrad<Args>>{}};
};
const Entries<float, float, float> kFFF;
const Entries<float, float, bf16> kFFB;
const Entries<float, bf16, float> kFBF;
const Entries<float, bf16, bf16> kFBB;
const Entries<bf16, float, float> kBFF;
const Entries<bf16, float, bf16> kBFB;
const Entries<bf16, bf16, float> kBBF;
const Entries<bf16, bf16, bf16> kBBB;

}  // namespace

}  // namespace tessera::TESSERA_DEVICE
