#ifndef TESSERA_KERNELS_CUDA_BLOCK_PRODUCT_H_
#define TESSERA_KERNELS_CUDA_BLOCK_PRODUCT_H_

#include "kernels/cuda/reduce.h"

// Products of tiles in shared memory by a block of 256 threads, for the scans: bf16 on tensor
// cores, fp32 by multiply-adds. The tiles hold fp32 and are padded with zeros to whole squares of
// 64, so nothing is checked; factors are functions of them, so that decays are multiplied on as
// they are read, and rounded after.
//
// A result is sum[n][e] in registers: element e of piece n stands in row L::Row(e) and column
// L::Column(n, e), for one of two layouts L.

namespace tessera::TESSERA_DEVICE {
namespace {

constexpr int kScanThreads = 256;

// 64 rows and 16 kN columns: eight warps, four times 16 rows, twice 32 of every 64 columns.
struct Square {
  static __device__ __forceinline__ int Half() { return static_cast<int>(threadIdx.x) / 128; }
  static __device__ __forceinline__ int Row(int e) {
    return threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4 + e / 2 * 8;
  }
  static __device__ __forceinline__ int Piece(int n) {
    return n / 4 * 64 + Half() * 32 + n % 4 * 8;
  }
  static __device__ __forceinline__ int Column(int n, int e) {
    return Piece(n) + threadIdx.x % 4 * 2 + e % 2;
  }
};
// 16 rows and 64 kN columns: a warp has eight of every 64.
struct Strip {
  static __device__ __forceinline__ int Row(int e) { return threadIdx.x % 32 / 4 + e / 2 * 8; }
  static __device__ __forceinline__ int Piece(int n) { return n * 64 + threadIdx.x / 32 * 8; }
  static __device__ __forceinline__ int Column(int n, int e) {
    return Piece(n) + threadIdx.x % 4 * 2 + e % 2;
  }
};

// sum += the product over k < depth, a multiple of 16, of a(row, k) and b(k, column).
template <class T, class L, int kN, class A, class B>
__device__ __forceinline__ void AddProduct(int depth, A a, B b, float (&sum)[kN][4]) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4 * 2;
  if constexpr (sizeof(T) == 2) {
    for (int k = t; k < depth; k += 16) {
      const int low = L::Row(0), high = L::Row(2);
      const uint32_t fa[4] = {
          PackBf16(a(low, k), a(low, k + 1)), PackBf16(a(high, k), a(high, k + 1)),
          PackBf16(a(low, k + 8), a(low, k + 9)), PackBf16(a(high, k + 8), a(high, k + 9))};
#pragma unroll
      for (int n = 0; n < kN; ++n) {
        const int column = L::Piece(n) + g;
        mma_bf16(sum[n], fa, PackBf16(b(k, column), b(k + 1, column)),
                 PackBf16(b(k + 8, column), b(k + 9, column)));
      }
    }
  } else {
    for (int k = 0; k < depth; ++k) {
      const float low = a(L::Row(0), k), high = a(L::Row(2), k);
#pragma unroll
      for (int n = 0; n < kN; ++n) {
        const float left = b(k, L::Column(n, 0)), right = b(k, L::Column(n, 1));
        sum[n][0] += low * left;
        sum[n][1] += low * right;
        sum[n][2] += high * left;
        sum[n][3] += high * right;
      }
    }
  }
}

// each(row, column, element) of what this thread has.
template <class L, int kN, class Each>
__device__ __forceinline__ void ForOwned(float (&sum)[kN][4], Each each) {
#pragma unroll
  for (int n = 0; n < kN; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) each(L::Row(e), L::Column(n, e), sum[n][e]);
}

// Tiles of floats, one after another in shared memory.
struct Tile {
  float* data;
  int pitch;
  __device__ __forceinline__ float& operator()(int64_t row, int64_t column) const {
    return data[row * pitch + column];
  }
};
constexpr int Padded(int64_t columns) { return static_cast<int>((columns + 63) / 64 * 64); }
constexpr int TilePitch(int64_t columns) { return Padded(columns) + 4; }
__device__ __forceinline__ Tile TakeTile(float*& shared, int rows, int64_t columns) {
  const Tile tile{shared, TilePitch(columns)};
  shared += rows * tile.pitch;
  return tile;
}

inline size_t TileBytes(int64_t rows, int64_t columns) {
  return static_cast<size_t>(rows * TilePitch(columns)) * sizeof(float);
}

// tile[r, c] = value(r, c) for r < count and c < width, 0 in the rest of the kRows rows.
template <int kRows, class Value>
__device__ __forceinline__ void FillTile(const Tile& tile, int64_t count, int64_t width,
                                         Value value) {
  const int columns = Padded(width);
  for (int i = static_cast<int>(threadIdx.x); i < kRows * columns; i += kScanThreads) {
    const int r = i / columns, c = i % columns;
    tile(r, c) = r < count && c < width ? value(r, c) : 0;
  }
}

// A state [rows, columns] in memory to a tile and its zeros; null is zero.
template <class Source>
__device__ __forceinline__ void FillState(const Tile& tile, int64_t rows, int64_t columns,
                                          const Source* from) {
  const int wide = Padded(columns), tall = Padded(rows);
  for (int i = static_cast<int>(threadIdx.x); i < tall * wide; i += kScanThreads) {
    const int r = i / wide, c = i % wide;
    tile(r, c) = from != nullptr && r < rows && c < columns ? from[r * columns + c] : 0;
  }
}

}  // namespace
}  // namespace tessera::TESSERA_DEVICE

#endif  // TESSERA_KERNELS_CUDA_BLOCK_PRODUCT_H_
