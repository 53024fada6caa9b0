#ifndef TESSERA_KERNELS_CUDA_PRODUCT_H_
#define TESSERA_KERNELS_CUDA_PRODUCT_H_

#include "kernels/cuda/reduce.h"
#include "kernels/product/matmul.h"

// One 64 x 64 tile of a matrix product by a block of 128 threads: bf16 by tensor cores, fp32 by
// multiply-adds. Factors come through shared memory, converted and, for bf16, in the order in which
// they are stored, since ldmatrix transposes for free. The next depth's elements are loaded into
// registers while the present ones are multiplied. Sums run along K in one order: the same bits
// each time.

namespace tessera::TESSERA_DEVICE {
namespace {

constexpr int kTile = 64, kProductThreads = 128;
template <Precision P>
constexpr int kDepth = P == Precision::kBF16 ? 32 : 16;

// A factor as a tile sees it: an outer index (rows of the product for A, columns for B) and the
// inner one, k. kOuter: stored by rows of k.
struct Side {
  Factor factor;
  bool aligned;  // four elements can be loaded at once
};
inline Side SideOf(const Factor& f) {
  return {f, reinterpret_cast<uintptr_t>(f.data) % 16 == 0 && f.stride % 4 == 0};
}
__device__ __forceinline__ Side Moved(Side s, int64_t elements) {
  s.factor.data =
      static_cast<const char*>(s.factor.data) + elements * (s.factor.dtype == DType::kF32 ? 4 : 2);
  s.aligned = s.aligned && elements % 8 == 0;
  return s;
}

// Elements [column, column + 4) of a stored row; zero from `end` on.
template <class T>
__device__ __forceinline__ void LoadFour(const T* row, bool aligned, int64_t column, int64_t end,
                                         float (&v)[4]) {
  if (aligned && column + 4 <= end) {
    Load(row + column, v);
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) v[i] = column + i < end ? ToFloat(row[column + i]) : 0;
}
__device__ __forceinline__ void LoadFour(const Side& s, int64_t row, int64_t row_end,
                                         int64_t column, int64_t end, float (&v)[4]) {
  if (row >= row_end) {
#pragma unroll
    for (float& x : v) x = 0;
    return;
  }
  const Factor& f = s.factor;
  const int64_t at = (f.rows != nullptr ? f.rows[row] : row) * f.stride;
  if (f.dtype == DType::kF32)
    LoadFour(static_cast<const float*>(f.data) + at, s.aligned, column, end, v);
  else
    LoadFour(static_cast<const bf16*>(f.data) + at, s.aligned, column, end, v);
}

// One side of a tile on its way from memory to shared memory. In shared memory bf16 is as stored,
// [64][depth] or [depth][64]; fp32 is [depth][64]. Rows are padded against bank conflicts.
template <Precision P, bool kOuter>
struct Stage {
  static constexpr bool kHalf = P == Precision::kBF16;
  using Element = std::conditional_t<kHalf, bf16, float>;
  static constexpr int kStored = kOuter ? kDepth<P> : kTile;  // elements of a stored row
  static constexpr int kPitch = kHalf ? kStored + 8 : kTile + 4;
  static constexpr int kElements = (kHalf && kOuter ? kTile : kDepth<P>)*kPitch;
  static constexpr int kQuads = kTile * kDepth<P> / 4 / kProductThreads;

  float quad[kQuads][4];

  template <class S>
  __device__ __forceinline__ void Read(const S& s, int64_t outer, int64_t outer_end, int64_t k,
                                       int64_t k_end) {
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      const int q = static_cast<int>(threadIdx.x) + i * kProductThreads;
      const int row = q / (kStored / 4), column = q % (kStored / 4) * 4;
      if (kOuter)
        LoadFour(s, outer + row, outer_end, k + column, k_end, quad[i]);
      else
        LoadFour(s, k + row, k_end, outer + column, outer_end, quad[i]);
    }
  }
  __device__ __forceinline__ void Write(Element* tile) const {
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      const int q = static_cast<int>(threadIdx.x) + i * kProductThreads;
      const int row = q / (kStored / 4), column = q % (kStored / 4) * 4;
      if (kHalf || !kOuter) {
        Store(tile + row * kPitch + column, quad[i]);
      } else {
#pragma unroll
        for (int j = 0; j < 4; ++j)
          tile[(column + j) * kPitch + row] = FromFloat<Element>(quad[i][j]);
      }
    }
  }
};

// Four warps, each 32 x 32 of the tile: two by four products of 16 x 8.
template <bool kAOuter, bool kBOuter>
struct HalfTile {
  using A = Stage<Precision::kBF16, kAOuter>;
  using B = Stage<Precision::kBF16, kBOuter>;
  float sum[2][4][4] = {};

  __device__ __forceinline__ void Multiply(const bf16* a, const bf16* b) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int m = warp / 2 * 32, n = warp % 2 * 32;
#pragma unroll
    for (int k = 0; k < kDepth<Precision::kBF16>; k += 16) {
      uint32_t fa[2][4], fb[2][4];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        // The four 8 x 8 matrices in the order of mma's registers: for a by rows, then by k; for b
        // by k, then by columns.
        if (kAOuter)
          ldmatrix_x4(fa[i], a + (m + 16 * i + lane % 16) * A::kPitch + k + lane / 16 * 8);
        else
          ldmatrix_x4_trans(fa[i], a + (k + lane / 16 * 8 + lane % 8) * A::kPitch + m + 16 * i +
                                       lane / 8 % 2 * 8);
        if (kBOuter)
          ldmatrix_x4(fb[i], b + (n + 16 * i + lane / 16 * 8 + lane % 8) * B::kPitch + k +
                                 lane / 8 % 2 * 8);
        else
          ldmatrix_x4_trans(fb[i], b + (k + lane % 16) * B::kPitch + n + 16 * i + lane / 16 * 8);
      }
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
          mma_bf16(sum[i][j], fa[i], fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]);
    }
  }
  // put(row, column, sum) for the elements of this thread.
  template <class Put>
  __device__ __forceinline__ void ForEach(Put put) const {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e)
          put(warp / 2 * 32 + 16 * i + lane / 4 + e / 2 * 8,
              warp % 2 * 32 + 8 * j + lane % 4 * 2 + e % 2, sum[i][j][e]);
  }
};

// A thread has 8 rows and 4 columns.
template <bool kAOuter, bool kBOuter>
struct FloatTile {
  using A = Stage<Precision::kF32, kAOuter>;
  using B = Stage<Precision::kF32, kBOuter>;
  float sum[8][4] = {};

  __device__ __forceinline__ void Multiply(const float* a, const float* b) {
    const int m = threadIdx.x / 16 * 8, n = threadIdx.x % 16 * 4;
#pragma unroll
    for (int k = 0; k < kDepth<Precision::kF32>; ++k) {
      float x[2][4], y[4];
      Load(a + k * A::kPitch + m, x[0]);
      Load(a + k * A::kPitch + m + 4, x[1]);
      Load(b + k * B::kPitch + n, y);
#pragma unroll
      for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] += x[i / 4][i % 4] * y[j];
    }
  }
  template <class Put>
  __device__ __forceinline__ void ForEach(Put put) const {
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        put(threadIdx.x / 16 * 8 + i, threadIdx.x % 16 * 4 + j, sum[i][j]);
  }
};

// put(i, j, (A B)[i,j]) for the tile's elements with m + i < m_end and n + j < n_end, where A has
// rows [m, m_end), B columns [n, n_end) and both k in [k, k_end). A factor is a Side or what has a
// LoadFour of its own.
template <Precision P, bool kAOuter, bool kBOuter, class SideA, class SideB, class Put>
__device__ __forceinline__ void TileProduct(const SideA& a, const SideB& b, int64_t m,
                                            int64_t m_end, int64_t n, int64_t n_end, int64_t k,
                                            int64_t k_end, Put put) {
  using Tile = std::conditional_t<P == Precision::kBF16, HalfTile<kAOuter, kBOuter>,
                                  FloatTile<kAOuter, kBOuter>>;
  using StageA = Stage<P, kAOuter>;
  using StageB = Stage<P, kBOuter>;
  TESSERA_SHARED(typename StageA::Element[StageA::kElements], tile_a);
  TESSERA_SHARED(typename StageB::Element[StageB::kElements], tile_b);
  Tile tile;
  StageA next_a;
  StageB next_b;
  next_a.Read(a, m, m_end, k, k_end);
  next_b.Read(b, n, n_end, k, k_end);
  for (; k < k_end; k += kDepth<P>) {
    next_a.Write(tile_a);
    next_b.Write(tile_b);
    __syncthreads();  // the tiles are whole
    if (k + kDepth<P> < k_end) {
      next_a.Read(a, m, m_end, k + kDepth<P>, k_end);
      next_b.Read(b, n, n_end, k + kDepth<P>, k_end);
    }
    tile.Multiply(tile_a, tile_b);
    __syncthreads();  // and read, before the next ones are written
  }
  tile.ForEach([&](int i, int j, float sum) {
    if (m + i < m_end && n + j < n_end) put(m + i, n + j, sum);
  });
}

// Writes element (row, column) of a product, or adds to it.
__device__ __forceinline__ void Put(const Product& c, int64_t row, int64_t column, float v) {
  const int64_t at = (c.rows != nullptr ? c.rows[row] : row) * c.stride + column;
  if (c.dtype == DType::kF32)
    PutGrad(static_cast<float*>(c.data) + at, v, c.mode);
  else
    PutGrad(static_cast<bf16*>(c.data) + at, v, c.mode);
}

// A few rows against a weight stored by rows of k (MatmulArgs::few_rows), which is not rounded.
// Block i of 128 threads has row i % rows, its warp w column 4 (i / rows) + w; lanes have four
// elements of k each in turn, and add up by shuffles. The rows of a column are neighbours, so that
// the weight comes from cache for all but one.
inline dim3 FewRowsGrid(int64_t rows, int64_t N) {
  return dim3(static_cast<unsigned>(rows * CeilDivide(N, 4)));
}
template <class PutSum>
__device__ __forceinline__ void RowProduct(const Side& a, const Side& b, int64_t rows, int64_t N,
                                           int64_t K, PutSum put) {
  const int64_t row = blockIdx.x % rows, n = blockIdx.x / rows * 4 + threadIdx.x / 32;
  if (n >= N) return;
  const int lane = threadIdx.x % 32;
  float sum = 0;
  for (int64_t k = 4 * lane; k < K; k += 128) {
    float x[4], w[4];
    LoadFour(a, row, row + 1, k, K, x);
    LoadFour(b, n, N, k, K, w);
#pragma unroll
    for (int i = 0; i < 4; ++i) sum += x[i] * w[i];
  }
  sum = WarpSum(sum);
  if (lane == 0) put(row, n, sum);
}

// use(constant of Precision, of kAOuter, of kBOuter): a kernel for each way to store the factors.
template <class Use>
void ByProduct(Precision precision, bool a_outer, bool b_outer, Use&& use) {
  const auto by_b = [&](auto p, auto a) {
    b_outer ? use(p, a, std::true_type{}) : use(p, a, std::false_type{});
  };
  const auto by_a = [&](auto p) {
    a_outer ? by_b(p, std::true_type{}) : by_b(p, std::false_type{});
  };
  precision == Precision::kBF16 ? by_a(std::integral_constant<Precision, Precision::kBF16>{})
                                : by_a(std::integral_constant<Precision, Precision::kF32>{});
}

}  // namespace
}  // namespace tessera::TESSERA_DEVICE

#endif  // TESSERA_KERNELS_CUDA_PRODUCT_H_
