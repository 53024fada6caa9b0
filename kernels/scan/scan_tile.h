#ifndef TESSERA_KERNELS_SCAN_SCAN_TILE_H_
#define TESSERA_KERNELS_SCAN_SCAN_TILE_H_

#include <cstdint>

#include "core/parallel.h"
#include "kernels/cost.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/tile_product.h"

// What chunkwise scans share: tiles of a few dozen tokens, widened to fp32 in a thread's scratch.

namespace tessera::TESSERA_ISA {
namespace {

constexpr int64_t Smaller(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t Larger(int64_t a, int64_t b) { return a > b ? a : b; }
constexpr int64_t RoundUp(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
// The stride of a tile whose rows hold `width` floats: no power of two, so that its rows spread
// over the sets of the cache.
constexpr int64_t TileStride(int64_t width) { return RoundUp(width, 16) + 16; }

// Hands out one block piece by piece, 64-byte aligned. The same code that takes the pieces measures
// them first, from null.
class Pieces {
 public:
  explicit Pieces(float* begin) : begin_(begin) {}
  float* Take(int64_t floats) {
    float* p = begin_ == nullptr ? nullptr : begin_ + taken_;
    taken_ += RoundUp(floats, 16);
    return p;
  }
  int64_t taken() const { return taken_; }

 private:
  float* begin_;
  int64_t taken_ = 0;
};

template <class P>
inline Vec LoadPart(const P* p, int n) {
  return n == kLanes ? Load(p) : Load(p, n);
}
template <class P>
inline void StorePart(P* p, Vec v, int n) {
  n == kLanes ? Store(p, v) : Store(p, v, n);
}

// y = x, widened.
template <class P>
void LoadRows(const P* x, int64_t stride, int64_t rows, int64_t width, float* y, int64_t ldy) {
  for (int64_t r = 0; r < rows; ++r)
    ForLanes(width, [&](int64_t i, int n) {
      StorePart(y + r * ldy + i, LoadPart(x + r * stride + i, n), n);
    });
}

// y = or += x, narrowed.
template <class P>
void StoreRows(const float* x, int64_t ldx, int64_t rows, int64_t width, P* y, int64_t stride,
               Grad mode) {
  for (int64_t r = 0; r < rows; ++r)
    ForLanes(width, [&](int64_t i, int n) {
      Vec v = LoadPart(x + r * ldx + i, n);
      if (mode == Grad::kAccumulate) v += LoadPart(y + r * stride + i, n);
      StorePart(y + r * stride + i, v, n);
    });
}

inline void FillZero(float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = 0;
}

// Rows summed over their lanes, up to 64 of them at a time and without a horizontal add: each row
// leaves a vector, the vectors are transposed.
class LaneSums {
 public:
  static constexpr int64_t kRows = 64;
  void Set(int64_t row, Vec v) { Store(lanes_ + row * kLanes, v); }
  void Sum(int64_t rows, float* sums) {
    Transpose(RoundUp(rows, 8), kLanes, lanes_, kLanes, columns_, kRows);
    ForLanes(rows, [&](int64_t i, int n) {
      Vec s = Vec{};
      for (int lane = 0; lane < kLanes; ++lane) s += Load(columns_ + lane * kRows + i);
      StorePart(sums + i, s, n);
    });
  }

 private:
  alignas(64) float lanes_[kRows * kLanes] = {};
  alignas(64) float columns_[kRows * kLanes];
};

// sums[r] = x[r,:] . y[r,:] for up to 64 rows.
template <class P>
void RowDots(const P* x, int64_t ldx, const float* y, int64_t ldy, int64_t rows, int64_t width,
             LaneSums* work, float* sums) {
  for (int64_t r = 0; r < rows; ++r) {
    Vec s = Vec{};
    ForLanes(width, [&](int64_t i, int n) {
      s += LoadPart(x + r * ldx + i, n) * LoadPart(y + r * ldy + i, n);
    });
    work->Set(r, s);
  }
  work->Sum(rows, sums);
}

inline float Dot(const float* x, int64_t ldx, const float* y, int64_t ldy, int64_t rows,
                 int64_t width) {
  Vec s[2] = {};
  for (int64_t r = 0; r < rows; ++r)
    ForLanes(width, [&](int64_t i, int n) {
      s[r & 1] += LoadPart(x + r * ldx + i, n) * LoadPart(y + r * ldy + i, n);
    });
  return Sum(s[0] + s[1]);
}

}  // namespace
}  // namespace tessera::TESSERA_ISA

#endif  // TESSERA_KERNELS_SCAN_SCAN_TILE_H_
