#ifndef TESSERA_KERNELS_CUDA_BLOCK_PRODUCT_H_
#define TESSERA_KERNELS_CUDA_BLOCK_PRODUCT_H_

#include "kernels/cuda/reduce.h"

// Products of fp32 tiles in shared memory by a block of 256 threads, for the scans: thread (y, x) =
// (thread / 16, thread % 16) has rows y + 16 i and columns x + 16 j of the result, for i < kI and
// j < kJ, in registers. Tiles are padded with zeros to whole squares of 64, so nothing is checked.

namespace tessera::TESSERA_DEVICE {
namespace {

constexpr int kScanThreads = 256;

__device__ __forceinline__ int OwnRow(int i) { return static_cast<int>(threadIdx.x) / 16 + 16 * i; }
__device__ __forceinline__ int OwnColumn(int j) {
  return static_cast<int>(threadIdx.x) % 16 + 16 * j;
}

// sum[i][j] += sum over k < depth of a(row, k) b(k, column).
template <int kI, int kJ, class A, class B>
__device__ __forceinline__ void AddProduct(int depth, A a, B b, float (&sum)[kI][kJ]) {
  for (int k = 0; k < depth; ++k) {
    float x[kI], y[kJ];
#pragma unroll
    for (int i = 0; i < kI; ++i) x[i] = a(OwnRow(i), k);
#pragma unroll
    for (int j = 0; j < kJ; ++j) y[j] = b(k, OwnColumn(j));
#pragma unroll
    for (int i = 0; i < kI; ++i)
#pragma unroll
      for (int j = 0; j < kJ; ++j) sum[i][j] += x[i] * y[j];
  }
}

// each(row, column, element) of what this thread has.
template <int kI, int kJ, class Each>
__device__ __forceinline__ void ForOwned(float (&sum)[kI][kJ], Each each) {
#pragma unroll
  for (int i = 0; i < kI; ++i)
#pragma unroll
    for (int j = 0; j < kJ; ++j) each(OwnRow(i), OwnColumn(j), sum[i][j]);
}

// The sum over the 16 threads that share rows.
__device__ __forceinline__ float OwnRowSum(float v) {
#pragma unroll
  for (int x = 8; x > 0; x /= 2) v += __shfl_xor_sync(kAllLanes, v, x);
  return v;
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
