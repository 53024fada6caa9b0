#ifndef TESSERA_KERNELS_CUDA_FRAGMENT_H_
#define TESSERA_KERNELS_CUDA_FRAGMENT_H_

#include "kernels/cuda/reduce.h"

// Products of tiles in shared memory by a warp, which has 16 rows of the result. A result of C
// columns is a fragment f[C / 8][4] in registers: with g = lane / 4 and t = 2 (lane % 4), f[n]
// holds elements (g, 8n + t), (g, 8n + t + 1), (g + 8, 8n + t), (g + 8, 8n + t + 1). So a row
// belongs to the four lanes of one g, for fp32 as for bf16: what is written on fragments serves
// both.
//
// A tile is [rows][kPitch] elements; kPitch leaves room against bank conflicts.

namespace tessera::TESSERA_DEVICE {
namespace {

template <class T>
struct Fragments;

// On tensor cores, 16 x 8 x 16 at a time.
template <>
struct Fragments<bf16> {
  using Element = bf16;
  static constexpr int Pitch(int columns) { return columns + 8; }
  // Floats of shared memory that a warp needs for Rows.
  static constexpr int ScratchFloats(int) { return 0; }

  // s += A B^T: A's 16 rows and B's kRows, both of kDepth elements.
  template <int kRows, int kDepth>
  static __device__ __forceinline__ void Dots(const bf16* a, const bf16* b,
                                              float (&s)[kRows / 8][4]) {
    constexpr int pitch = Pitch(kDepth);
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      uint32_t fa[4], fb[4];
      ldmatrix_x4(fa, a + lane % 16 * pitch + k + lane / 16 * 8);
#pragma unroll
      for (int n = 0; n < kRows; n += 16) {
        ldmatrix_x4(fb, b + (n + lane / 16 * 8 + lane % 8) * pitch + k + lane / 8 % 2 * 8);
        mma_bf16(s[n / 8], fa, fb[0], fb[1]);
        mma_bf16(s[n / 8 + 1], fa, fb[2], fb[3]);
      }
    }
  }

  // o += P B: P is a fragment of kRows columns, B has kRows rows of kColumns elements.
  template <int kRows, int kColumns>
  static __device__ __forceinline__ void Rows(const float (&p)[kRows / 8][4], const bf16* b, float*,
                                              float (&o)[kColumns / 8][4]) {
    constexpr int pitch = Pitch(kColumns);
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < kRows; k += 16) {
      const auto &left = p[k / 8], &right = p[k / 8 + 1];
      const uint32_t fa[4] = {PackBf16(left[0], left[1]), PackBf16(left[2], left[3]),
                              PackBf16(right[0], right[1]), PackBf16(right[2], right[3])};
#pragma unroll
      for (int n = 0; n < kColumns; n += 16) {
        uint32_t fb[4];
        ldmatrix_x4_trans(fb, b + (k + lane % 16) * pitch + n + lane / 16 * 8);
        mma_bf16(o[n / 8], fa, fb[0], fb[1]);
        mma_bf16(o[n / 8 + 1], fa, fb[2], fb[3]);
      }
    }
  }
};

// By multiply-adds, sums in order.
template <>
struct Fragments<float> {
  using Element = float;
  static constexpr int Pitch(int columns) { return columns + 4; }
  static constexpr int ScratchFloats(int rows) { return 16 * (rows + 4); }

  template <int kRows, int kDepth>
  static __device__ __forceinline__ void Dots(const float* a, const float* b,
                                              float (&s)[kRows / 8][4]) {
    constexpr int pitch = Pitch(kDepth);
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4 * 2;
    for (int k = 0; k < kDepth; k += 4) {
      float low[4], high[4], left[4], right[4];
      Load(a + g * pitch + k, low);
      Load(a + (g + 8) * pitch + k, high);
#pragma unroll
      for (int n = 0; n < kRows / 8; ++n) {
        Load(b + (8 * n + t) * pitch + k, left);
        Load(b + (8 * n + t + 1) * pitch + k, right);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          s[n][0] += low[i] * left[i];
          s[n][1] += low[i] * right[i];
          s[n][2] += high[i] * left[i];
          s[n][3] += high[i] * right[i];
        }
      }
    }
  }

  // The lanes of a row have a part of P each, so it goes through `scratch`, which is the warp's
  // own: no barrier of the block, but the warp waits until P is whole, and until all have read it.
  template <int kRows, int kColumns>
  static __device__ __forceinline__ void Rows(const float (&p)[kRows / 8][4], const float* b,
                                              float* scratch, float (&o)[kColumns / 8][4]) {
    constexpr int pitch = Pitch(kColumns), row = kRows + 4;
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < kRows / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) scratch[(g + i / 2 * 8) * row + 8 * n + t + i % 2] = p[n][i];
    __syncwarp();
    for (int k = 0; k < kRows; ++k) {
      const float low = scratch[g * row + k], high = scratch[(g + 8) * row + k];
#pragma unroll
      for (int n = 0; n < kColumns / 8; ++n) {
        float v[2];
        Load(b + k * pitch + 8 * n + t, v);
        o[n][0] += low * v[0];
        o[n][1] += low * v[1];
        o[n][2] += high * v[0];
        o[n][3] += high * v[1];
      }
    }
    __syncwarp();
  }
};

// each(row of the warp's 16, column, element) for a fragment.
template <int kN, class Each>
__device__ __forceinline__ void ForFragment(float (&f)[kN][4], Each each) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4 * 2;
#pragma unroll
  for (int n = 0; n < kN; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) each(g + i / 2 * 8, 8 * n + t + i % 2, f[n][i]);
}

// Fills a tile [kRows][kColumns] from rows of `width` elements that row_at(i) points to, with zeros
// to the right of them and where it is null. All kThreads threads, row after row, neighbours
// together.
template <int kThreads, int kRows, int kColumns, class T, class RowAt>
__device__ __forceinline__ void LoadTile(T* tile, int64_t width, bool aligned, RowAt row_at) {
  constexpr int kChunk = kVector<T>, kChunks = kColumns / kChunk;
  constexpr int pitch = Fragments<T>::Pitch(kColumns);
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kChunks; i += kThreads) {
    const int row = i / kChunks, column = i % kChunks * kChunk;
    const T* from = row_at(row);
    Pack<T, kChunk> pack;
    if (from != nullptr && aligned && column + kChunk <= width) {
      pack = *reinterpret_cast<const Pack<T, kChunk>*>(from + column);
    } else {
#pragma unroll
      for (int j = 0; j < kChunk; ++j)
        pack.v[j] = from != nullptr && column + j < width ? from[column + j] : FromFloat<T>(0);
    }
    *reinterpret_cast<Pack<T, kChunk>*>(tile + row * pitch + column) = pack;
  }
}

}  // namespace
}  // namespace tessera::TESSERA_DEVICE

#endif  // TESSERA_KERNELS_CUDA_FRAGMENT_H_
