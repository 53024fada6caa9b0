#ifndef TESSERA_KERNELS_CUDA_FRAGMENT_H_
#define TESSERA_KERNELS_CUDA_FRAGMENT_H_

#include "kernels/cuda/reduce.h"

// Products of tiles in shared memory by a warp, which has 16 kM rows of the result. A result of C
// columns is a fragment f[kM][C / 8][4] in registers: with g = lane / 4 and t = 2 (lane % 4),
// f[m][n] holds elements (g, 8n + t), (g, 8n + t + 1), (g + 8, 8n + t), (g + 8, 8n + t + 1) of rows
// [16m, 16m + 16). So a row belongs to the four lanes of one g, for fp32 as for bf16: what is
// written on fragments serves both. A lane's rows are FragmentRow(0 .. 2 kM - 1).
//
// A tile is [rows][pitch] elements; the pitch leaves room against bank conflicts. Each element of a
// right factor that a warp loads serves its kM products, so more rows a warp mean fewer bytes of
// shared memory, which is what bounds tensor cores here.

namespace tessera::TESSERA_DEVICE {
namespace {

__device__ __forceinline__ int FragmentRow(int r) {
  return r / 2 * 16 + static_cast<int>(threadIdx.x) % 32 / 4 + r % 2 * 8;
}
// each(r, column, element) for a fragment, r as FragmentRow takes it.
template <int kM, int kN, class Each>
__device__ __forceinline__ void ForFragment(float (&f)[kM][kN][4], Each each) {
  const int t = threadIdx.x % 4 * 2;
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int n = 0; n < kN; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) each(2 * m + i / 2, 8 * n + t + i % 2, f[m][n][i]);
}

// What Columns multiplies rows by where they stay as they are.
struct Unscaled {
  __device__ __forceinline__ float operator()(int) const { return 1; }
};

template <class T>
struct Fragments;

// On tensor cores, 16 x 8 x 16 at a time.
template <>
struct Fragments<bf16> {
  static constexpr int Pitch(int columns) { return columns + 8; }
  // Floats of shared memory that a warp needs for Rows.
  static constexpr int ScratchFloats(int) { return 0; }

  // s += A B^T: A's 16 kM rows and B's kRows, both of kDepth elements.
  template <int kRows, int kDepth, int kM>
  static __device__ __forceinline__ void Dots(const bf16* a, const bf16* b,
                                              float (&s)[kM][kRows / 8][4]) {
    constexpr int pitch = Pitch(kDepth);
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      uint32_t fa[kM][4], fb[4];
#pragma unroll
      for (int m = 0; m < kM; ++m)
        ldmatrix_x4(fa[m], a + (16 * m + lane % 16) * pitch + k + lane / 16 * 8);
#pragma unroll
      for (int n = 0; n < kRows; n += 16) {
        ldmatrix_x4(fb, b + (n + lane / 16 * 8 + lane % 8) * pitch + k + lane / 8 % 2 * 8);
#pragma unroll
        for (int m = 0; m < kM; ++m) {
          mma_bf16(s[m][n / 8], fa[m], fb[0], fb[1]);
          mma_bf16(s[m][n / 8 + 1], fa[m], fb[2], fb[3]);
        }
      }
    }
  }

  // o += P B: P is a fragment of kRows columns, B has kRows rows, kPitch apart, of kColumns
  // elements.
  template <int kRows, int kColumns, int kPitch, int kM>
  static __device__ __forceinline__ void Rows(const float (&p)[kM][kRows / 8][4], const bf16* b,
                                              float*, float (&o)[kM][kColumns / 8][4]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < kRows; k += 16) {
      uint32_t fa[kM][4];
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        const auto &left = p[m][k / 8], &right = p[m][k / 8 + 1];
        fa[m][0] = PackBf16(left[0], left[1]), fa[m][1] = PackBf16(left[2], left[3]);
        fa[m][2] = PackBf16(right[0], right[1]), fa[m][3] = PackBf16(right[2], right[3]);
      }
      AddRows<kColumns, kPitch>(fa, b + (k + lane % 16) * kPitch + lane / 16 * 8, o);
    }
  }
  // The same with P in shared memory: [16 kM rows][kRows], as StoreFragment leaves it.
  template <int kRows, int kColumns, int kPitch, int kM>
  static __device__ __forceinline__ void StoredRows(const bf16* p, const bf16* b,
                                                    float (&o)[kM][kColumns / 8][4]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < kRows; k += 16) {
      uint32_t fa[kM][4];
#pragma unroll
      for (int m = 0; m < kM; ++m)
        ldmatrix_x4(fa[m], p + (16 * m + lane % 16) * Pitch(kRows) + k + lane / 16 * 8);
      AddRows<kColumns, kPitch>(fa, b + (k + lane % 16) * kPitch + lane / 16 * 8, o);
    }
  }
  // o += A^T B with A's rows scaled: A has kDepth rows of the 16 kM columns that the warp owns.
  template <int kDepth, int kColumns, int kPitchA, int kPitchB, int kM, class Scale>
  static __device__ __forceinline__ void Columns(const bf16* a, const bf16* b, Scale scale,
                                                 float (&o)[kM][kColumns / 8][4]) {
    const int lane = threadIdx.x % 32;
    [[maybe_unused]] const int t = lane % 4 * 2;
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      uint32_t fa[kM][4];
#pragma unroll
      for (int m = 0; m < kM; ++m)
        ldmatrix_x4_trans(fa[m],
                          a + (k + lane / 16 * 8 + lane % 8) * kPitchA + 16 * m + lane / 8 % 2 * 8);
      if constexpr (!std::is_same_v<Scale, Unscaled>) {
        const float low[2] = {scale(k + t), scale(k + t + 1)};
        const float high[2] = {scale(k + t + 8), scale(k + t + 9)};
#pragma unroll
        for (int m = 0; m < kM; ++m) {
          fa[m][0] = Scaled(fa[m][0], low), fa[m][1] = Scaled(fa[m][1], low);
          fa[m][2] = Scaled(fa[m][2], high), fa[m][3] = Scaled(fa[m][3], high);
        }
      }
      AddRows<kColumns, kPitchB>(fa, b + (k + lane % 16) * kPitchB + lane / 16 * 8, o);
    }
  }

 private:
  static __device__ __forceinline__ uint32_t Scaled(uint32_t pair, const float (&by)[2]) {
    return PackBf16(__uint_as_float(pair << 16) * by[0],
                    __uint_as_float(pair & 0xffff0000u) * by[1]);
  }
  template <int kColumns, int kPitch, int kM>
  static __device__ __forceinline__ void AddRows(const uint32_t (&fa)[kM][4], const bf16* b,
                                                 float (&o)[kM][kColumns / 8][4]) {
#pragma unroll
    for (int n = 0; n < kColumns; n += 16) {
      uint32_t fb[4];
      ldmatrix_x4_trans(fb, b + n);
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        mma_bf16(o[m][n / 8], fa[m], fb[0], fb[1]);
        mma_bf16(o[m][n / 8 + 1], fa[m], fb[2], fb[3]);
      }
    }
  }
};

// By multiply-adds, sums in order.
template <>
struct Fragments<float> {
  static constexpr int Pitch(int columns) { return columns + 4; }
  static constexpr int ScratchFloats(int rows) { return 16 * (rows + 4); }

  template <int kRows, int kDepth, int kM>
  static __device__ __forceinline__ void Dots(const float* a, const float* b,
                                              float (&s)[kM][kRows / 8][4]) {
    constexpr int pitch = Pitch(kDepth);
    const int t = threadIdx.x % 4 * 2;
    for (int k = 0; k < kDepth; k += 4) {
      float rows[2 * kM][4], left[4], right[4];
#pragma unroll
      for (int r = 0; r < 2 * kM; ++r) Load(a + FragmentRow(r) * pitch + k, rows[r]);
#pragma unroll
      for (int n = 0; n < kRows / 8; ++n) {
        Load(b + (8 * n + t) * pitch + k, left);
        Load(b + (8 * n + t + 1) * pitch + k, right);
#pragma unroll
        for (int r = 0; r < 2 * kM; ++r)
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            s[r / 2][n][r % 2 * 2] += rows[r][i] * left[i];
            s[r / 2][n][r % 2 * 2 + 1] += rows[r][i] * right[i];
          }
      }
    }
  }

  // The lanes of a row have a part of P each, so it goes through `scratch`, which is the warp's
  // own: no barrier of the block, but the warp waits until P is whole, and until all have read it.
  template <int kRows, int kColumns, int kPitch>
  static __device__ __forceinline__ void Rows(float (&p)[1][kRows / 8][4], const float* b,
                                              float* scratch, float (&o)[1][kColumns / 8][4]) {
    ForFragment(p, [&](int r, int j, float x) { scratch[FragmentRow(r) * Pitch(kRows) + j] = x; });
    __syncwarp();
    StoredRows<kRows, kColumns, kPitch>(scratch, b, o);
    __syncwarp();
  }
  template <int kRows, int kColumns, int kPitch, int kM>
  static __device__ __forceinline__ void StoredRows(const float* p, const float* b,
                                                    float (&o)[kM][kColumns / 8][4]) {
    AddColumns<kRows, kColumns, kPitch>([&](int k, int row) { return p[row * Pitch(kRows) + k]; },
                                        b, o);
  }
  template <int kDepth, int kColumns, int kPitchA, int kPitchB, int kM, class Scale>
  static __device__ __forceinline__ void Columns(const float* a, const float* b, Scale scale,
                                                 float (&o)[kM][kColumns / 8][4]) {
    AddColumns<kDepth, kColumns, kPitchB>(
        [&](int k, int row) { return a[k * kPitchA + row] * scale(k); }, b, o);
  }

 private:
  template <int kDepth, int kColumns, int kPitch, int kM, class A>
  static __device__ __forceinline__ void AddColumns(A a, const float* b,
                                                    float (&o)[kM][kColumns / 8][4]) {
    const int t = threadIdx.x % 4 * 2;
    for (int k = 0; k < kDepth; ++k) {
      float column[2 * kM];
#pragma unroll
      for (int r = 0; r < 2 * kM; ++r) column[r] = a(k, FragmentRow(r));
#pragma unroll
      for (int n = 0; n < kColumns / 8; ++n) {
        float v[2];
        Load(b + k * kPitch + 8 * n + t, v);
#pragma unroll
        for (int r = 0; r < 2 * kM; ++r) {
          o[r / 2][n][r % 2 * 2] += column[r] * v[0];
          o[r / 2][n][r % 2 * 2 + 1] += column[r] * v[1];
        }
      }
    }
  }
};

// A fragment to a tile, rounded where the tile is bf16: two neighbours at a time.
template <int kPitch, class T, int kM, int kN>
__device__ __forceinline__ void StoreFragment(const float (&f)[kM][kN][4], T* tile) {
  const int t = threadIdx.x % 4 * 2;
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int n = 0; n < kN; ++n)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float pair[2] = {f[m][n][2 * half], f[m][n][2 * half + 1]};
        Store(tile + FragmentRow(2 * m + half) * kPitch + 8 * n + t, pair);
      }
}

// Writes a fragment's columns below `width` to the rows that row_at(i) points to (null: nowhere),
// or adds to them, through a tile of the warp's own, so that a row is written 16 bytes at a time.
template <int kPitch, class T, int kM, int kN, class RowAt>
__device__ __forceinline__ void PutFragment(const float (&f)[kM][kN][4], T* own, int64_t width,
                                            bool aligned, Grad mode, RowAt row_at) {
  constexpr int kChunk = kVector<T>, kChunks = 8 * kN / kChunk;
  StoreFragment<kPitch>(f, own);
  __syncwarp();
  for (int i = static_cast<int>(threadIdx.x) % 32; i < 16 * kM * kChunks; i += 32) {
    const int row = i / kChunks, column = i % kChunks * kChunk;
    T* const to = row_at(row);
    if (to == nullptr || column >= width) continue;
    float v[kChunk];
    Load(own + row * kPitch + column, v);
    if (aligned && column + kChunk <= width) {
      PutGrad(to + column, v, mode);
      continue;
    }
#pragma unroll
    for (int j = 0; j < kChunk; ++j)
      if (column + j < width) PutGrad(to + column + j, v[j], mode);
  }
}

// The same from registers, two neighbours at a time, for those who have no such tile.
template <class T, int kM, int kN, class RowAt>
__device__ __forceinline__ void PutPairs(const float (&f)[kM][kN][4], int64_t width, bool aligned,
                                         Grad mode, RowAt row_at) {
#pragma unroll
  for (int r = 0; r < 2 * kM; ++r) {
    T* const to = row_at(r);
    if (to == nullptr) continue;
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      const int column = 8 * n + static_cast<int>(threadIdx.x) % 4 * 2;
      float pair[2] = {f[r / 2][n][r % 2 * 2], f[r / 2][n][r % 2 * 2 + 1]};
      if (aligned && column + 2 <= width) {
        PutGrad(to + column, pair, mode);
        continue;
      }
#pragma unroll
      for (int i = 0; i < 2; ++i)
        if (column + i < width) PutGrad(to + column + i, pair[i], mode);
    }
  }
}

// A fragment of floats from memory, or to it: the first `rows` rows and `columns` columns of a
// matrix with rows `stride` apart, zero outside; null is all zero.
template <int kM, int kN>
__device__ __forceinline__ void LoadFragment(float (&f)[kM][kN][4], int rows, int columns,
                                             int64_t stride, const float* from) {
  const bool paired = reinterpret_cast<uintptr_t>(from) % 8 == 0 && stride % 2 == 0;
#pragma unroll
  for (int r = 0; r < 2 * kM; ++r) {
    const bool there = from != nullptr && FragmentRow(r) < rows;
    const float* const row = from + FragmentRow(r) * stride;
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      const int column = 8 * n + static_cast<int>(threadIdx.x) % 4 * 2;
      float pair[2] = {};
      if (there && paired && column + 2 <= columns) {
        Load(row + column, pair);
      } else if (there) {
        for (int i = 0; i < 2; ++i)
          if (column + i < columns) pair[i] = row[column + i];
      }
      f[r / 2][n][r % 2 * 2] = pair[0];
      f[r / 2][n][r % 2 * 2 + 1] = pair[1];
    }
  }
}
template <int kM, int kN>
__device__ __forceinline__ void SaveFragment(const float (&f)[kM][kN][4], int rows, int columns,
                                             int64_t stride, float* to) {
  const bool paired = reinterpret_cast<uintptr_t>(to) % 8 == 0 && stride % 2 == 0;
  PutPairs<float>(f, columns, paired, Grad::kOverwrite, [&](int r) {
    return FragmentRow(r) < rows ? to + FragmentRow(r) * stride : nullptr;
  });
}

// Begins to fill a tile [kRows][kColumns] from rows of `width` elements that row_at(i) points to,
// with zeros to the right of them and where it is null. All kThreads threads, row after row,
// neighbours together. The copies join the thread's open group: cp_async_commit, cp_async_wait and
// a barrier make the tile whole. Rows that are not aligned are there at once.
template <int kThreads, int kRows, int kColumns, class T, class RowAt>
__device__ __forceinline__ void StartTile(T* tile, int width, bool aligned, RowAt row_at) {
  constexpr int kChunk = kVector<T>, kChunks = kColumns / kChunk;
  constexpr int pitch = Fragments<T>::Pitch(kColumns);
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kChunks; i += kThreads) {
    const int row = i / kChunks, column = i % kChunks * kChunk;
    const T* const from = row_at(row);
    T* const to = tile + row * pitch + column;
    if (aligned) {  // then width is a multiple of kChunk
      const bool any = from != nullptr && column < width;
      cp_async16(to, any ? from + column : nullptr, any ? 16 : 0);
      continue;
    }
    Pack<T, kChunk> pack;
#pragma unroll
    for (int j = 0; j < kChunk; ++j)
      pack.v[j] = from != nullptr && column + j < width ? from[column + j] : FromFloat<T>(0);
    *reinterpret_cast<Pack<T, kChunk>*>(to) = pack;
  }
}

}  // namespace
}  // namespace tessera::TESSERA_DEVICE

#endif  // TESSERA_KERNELS_CUDA_FRAGMENT_H_
