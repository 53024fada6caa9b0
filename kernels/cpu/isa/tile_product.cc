#include "kernels/cpu/tile_product.h"

#include "kernels/cpu/simd.h"
#include "kernels/cpu/transpose.h"

namespace tessera::TESSERA_ISA {
namespace {

// Rows of a register tile that is two vectors wide: sums, two vectors of b and one of a fit in the
// registers (32, or 16 with AVX2), and there are enough sums to hide the latency of their adds.
constexpr int kRows = kLanes == 16 ? 8 : 6;

struct Tile {
  int64_t k;
  const float* a;
  int64_t a_row, a_col;
  const float* b;
  int64_t ldb;
  float* c;
  int64_t ldc;
  bool add;
  int tail;  // elements of the last vector, where the tile is masked
};

// A tile of kM rows and kV vectors of columns. All sums stay in registers; fewer rows come with
// more vectors, for the same reason.
template <int kM, int kV, bool kMasked>
void Micro(const Tile& t) {
  const int64_t a_row = t.a_row, a_col = t.a_col, ldb = t.ldb;
  const float *a = t.a, *b = t.b;
  const int tail = t.tail;
  const auto load = [tail](const float* p, int j) __attribute__((always_inline)) {
    return kMasked && j == kV - 1 ? Load(p + j * kLanes, tail) : Load(p + j * kLanes);
  };
  Vec s[kM][kV];
#pragma GCC unroll 8
  for (int i = 0; i < kM; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kV; ++j) s[i][j] = Vec{};
#pragma GCC unroll 1
  for (int64_t p = t.k; p > 0; --p, a += a_col, b += ldb) {
    Vec y[kV];
#pragma GCC unroll 4
    for (int j = 0; j < kV; ++j) y[j] = load(b, j);
#pragma GCC unroll 8
    for (int i = 0; i < kM; ++i) {
      const Vec x = Splat(a[i * a_row]);
#pragma GCC unroll 4
      for (int j = 0; j < kV; ++j) s[i][j] += x * y[j];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kM; ++i) {
    float* c = t.c + i * t.ldc;
#pragma GCC unroll 4
    for (int j = 0; j < kV; ++j) {
      if (t.add) s[i][j] += load(c, j);
      if (kMasked && j == kV - 1) {
        Store(c + j * kLanes, s[i][j], tail);
      } else {
        Store(c + j * kLanes, s[i][j]);
      }
    }
  }
}

template <int kV, bool kMasked>
void MicroOf(int rows, const Tile& t) {
  static_assert(kRows <= 8);
  switch (rows) {
    case 1:
      return Micro<1, kV, kMasked>(t);
    case 2:
      return Micro<2, kV, kMasked>(t);
    case 3:
      return Micro<3, kV, kMasked>(t);
    case 4:
      return Micro<4, kV, kMasked>(t);
    case 5:
      return Micro<5, kV, kMasked>(t);
    case 6:
      return Micro<6, kV, kMasked>(t);
    case 7:
      return Micro < kRows < 7 ? 1 : 7, kV, kMasked > (t);
    default:
      return Micro<kRows, kV, kMasked>(t);
  }
}

// All columns of a band of rows.
template <int kV>
void Band(int rows, int64_t n, Tile t) {
  for (; n >= kV * kLanes; n -= kV * kLanes, t.b += kV * kLanes, t.c += kV * kLanes)
    MicroOf<kV, false>(rows, t);
  t.tail = static_cast<int>(n % kLanes);
  if (n >= kLanes) return t.tail == 0 ? MicroOf<1, false>(rows, t) : MicroOf<2, true>(rows, t);
  if (n > 0) MicroOf<1, true>(rows, t);
}

// The same for up to three rows, four vectors wide.
void NarrowBand(int rows, int64_t n, Tile t) {
  constexpr int kWide = 4 * kLanes;
  for (; n >= kWide; n -= kWide, t.b += kWide, t.c += kWide) {
    if (rows == 1) Micro<1, 4, false>(t);
    if (rows == 2) Micro<2, 4, false>(t);
    if (rows == 3) Micro<3, kLanes == 16 ? 4 : 2, false>(t);
  }
  Band<2>(rows, n, t);
}

}  // namespace

void TileProduct(int64_t m, int64_t n, int64_t k, const float* a, int64_t a_row, int64_t a_col,
                 const float* b, int64_t ldb, float* c, int64_t ldc, Grad mode) {
  // Bands of rows that differ by one at most, since a band of one row would wait for its own adds.
  const int64_t bands = (m + kRows - 1) / kRows;
  for (int64_t band = 0, row = 0; band < bands; ++band) {
    const int rows = static_cast<int>(m / bands + (band < m % bands));
    const Tile t{k,   a + row * a_row,           a_row, a_col, b, ldb, c + row * ldc,
                 ldc, mode == Grad::kAccumulate, 0};
    if (rows <= (kLanes == 16 ? 3 : 2)) {
      NarrowBand(rows, n, t);
    } else {
      Band<2>(rows, n, t);
    }
    row += rows;
  }
}

void Transpose(int64_t rows, int64_t cols, const float* x, int64_t ldx, float* y, int64_t ldy) {
  int64_t i = 0;
  for (; i + 8 <= rows; i += 8) {
    int64_t j = 0;
    for (; j + 8 <= cols; j += 8) {
      __m256 r[8];
      for (int p = 0; p < 8; ++p) r[p] = _mm256_loadu_ps(x + (i + p) * ldx + j);
      Transpose8(r);
      for (int p = 0; p < 8; ++p) _mm256_storeu_ps(y + (j + p) * ldy + i, r[p]);
    }
    for (; j < cols; ++j)
      for (int p = 0; p < 8; ++p) y[j * ldy + i + p] = x[(i + p) * ldx + j];
  }
  for (; i < rows; ++i)
    for (int64_t j = 0; j < cols; ++j) y[j * ldy + i] = x[i * ldx + j];
}

}  // namespace tessera::TESSERA_ISA
