#include "kernels/cpu/gemm.h"

#include <type_traits>
#include <utility>

#include "core/parallel.h"
#include "kernels/cpu/pack.h"
#include "kernels/cpu/simd.h"

namespace tessera::TESSERA_ISA {
namespace {

constexpr bool kWide = kLanes == 16;
// The register tile: its sums, a row of b and a broadcast of a fill the registers.
constexpr int kRows = kWide ? 14 : 6, kCols = 2 * kLanes;
// A panel of b over a block of K is read again for every tile of rows: from L1 where the
// tile is small, and from L2 where 28 multiply-adds hide that.
constexpr int64_t kBlockK = kWide ? 512 : 384;
constexpr int64_t kBlockM = kWide ? 6 * kRows : 12 * kRows;

inline int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t Pieces(int64_t n, int64_t size) { return (n + size - 1) / size; }

// The i-th of `pieces` nearly equal parts of n.
struct Piece {
  int64_t begin, size;
};
inline Piece PieceOf(int64_t n, int64_t pieces, int64_t i) {
  const int64_t size = n / pieces, longer = n % pieces;
  return {i * size + Min(i, longer), size + (i < longer)};
}

inline Vec MultiplyAdd(Vec x, Vec y, Vec s, std::false_type) { return x * y + s; }
#ifdef __AVX512BF16__
inline Vec MultiplyAdd(Vec x, Vec y, Vec s, std::true_type) {
  return _mm512_dpbf16_ps(s, (__m512bh)x, (__m512bh)y);
}
#else
inline Vec MultiplyAdd(Vec, Vec, Vec s, std::true_type) { return s; }
#endif

// c[kM, kV vectors] = or += a b over `k` packed elements: a is [k][kM], b is [k][kV vectors].
template <int kM, int kV, bool kPairs>
void Micro(int64_t k, const float* a, const float* b, float* c, int64_t ldc, bool add) {
  Vec s[kM][kV];
#pragma GCC unroll 14
  for (int i = 0; i < kM; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < kV; ++j) s[i][j] = Vec{};
#pragma GCC unroll 1
  for (; k > 0; --k, a += kM, b += kV * kLanes) {
    Vec y[kV];
#pragma GCC unroll 2
    for (int j = 0; j < kV; ++j) y[j] = Load(b + j * kLanes);
#pragma GCC unroll 14
    for (int i = 0; i < kM; ++i) {
      const Vec x = Splat(a[i]);
#pragma GCC unroll 2
      for (int j = 0; j < kV; ++j)
        s[i][j] = MultiplyAdd(x, y[j], s[i][j], std::bool_constant<kPairs>());
    }
  }
#pragma GCC unroll 14
  for (int i = 0; i < kM; ++i, c += ldc)
#pragma GCC unroll 2
    for (int j = 0; j < kV; ++j)
      Store(c + j * kLanes, add ? s[i][j] + Load(c + j * kLanes) : s[i][j]);
}

using MicroFn = void (*)(int64_t, const float*, const float*, float*, int64_t, bool);
template <int kV, bool kPairs, int... kM>
MicroFn MicroFor(int rows, std::integer_sequence<int, kM...>) {
  static constexpr MicroFn kTable[] = {Micro<kM + 1, kV, kPairs>...};
  return kTable[rows - 1];
}
template <bool kPairs>
MicroFn MicroFor(int rows, int vectors) {
  constexpr auto kUpTo = std::make_integer_sequence<int, kRows>();
  return vectors == 1 ? MicroFor<1, kPairs>(rows, kUpTo) : MicroFor<2, kPairs>(rows, kUpTo);
}

template <bool kPairs>
void Pack(const Factor& f, bool along, int64_t line, int lines, int width, int64_t k0, int64_t k,
          float* out) {
  if (f.dtype == DType::kF32)
    return PackPanel<kPairs, float>(f, along, line, lines, width, k0, k, out);
  PackPanel<kPairs, bf16>(f, along, line, lines, width, k0, k, out);
}

// Where the sums of a block go: straight into an fp32 product, or through Finish.
struct Sums {
  const MatmulArgs& args;
  bool direct;     // no scale, bias, scatter or rounding
  float* partial;  // [m, ld] of the whole block, between blocks of K, where not direct
  int64_t ld;
};

// One register tile, rows [i, i+rows) and columns [j, j+columns) of a block at (i0, j0).
void Tile(const Sums& s, MicroFn micro, int64_t k, const float* a, const float* b, int64_t i0,
          int64_t i, int rows, int64_t j0, int64_t j, int columns, int width, bool first,
          bool last) {
  const Product& c = s.args.c;
  if (s.direct && columns == width) {
    micro(k, a, b, static_cast<float*>(c.data) + (i0 + i) * c.stride + j0 + j, c.stride,
          !first || c.mode == Grad::kAccumulate);
    return;
  }
  alignas(64) float tile[kRows * kCols];
  if (s.direct) {
    micro(k, a, b, tile, width, false);
    MatmulArgs args = s.args;
    if (!first) args.c.mode = Grad::kAccumulate;
    return Finish(args, tile, width, i0 + i, rows, j0 + j, columns);
  }
  if (first && last) {
    micro(k, a, b, tile, width, false);
    return Finish(s.args, tile, width, i0 + i, rows, j0 + j, columns);
  }
  float* partial = s.partial + i * s.ld + j;
  micro(k, a, b, partial, s.ld, !first);
  if (last) Finish(s.args, partial, s.ld, i0 + i, rows, j0 + j, columns);
}

template <bool kPairs>
void Block(const MatmulArgs& args, int64_t i0, int64_t m, int64_t j0, int64_t n) {
  constexpr int64_t kStep = kPair<kPairs>;
  const bool a_along = args.a.order == Order::kPlain;
  const bool b_along = args.b.order == Order::kTransposed;
  const int64_t k_blocks = args.K == 0 ? 1 : Pieces(args.K, kBlockK * kStep);
  const int64_t max_k = Pieces(Min(args.K, kBlockK * kStep), kStep);
  const int64_t m_blocks = Pieces(m, kBlockM), panels = Pieces(n, kCols);
  auto* packed_b = static_cast<float*>(
      ThreadScratch((panels * kCols + Min(m, kBlockM)) * (max_k + 1) * 4 + 256, 0));
  float* packed_a = packed_b + panels * kCols * max_k;
  const Product& c = args.c;
  const bool direct = c.dtype == DType::kF32 && args.bias == nullptr && args.row_scale == nullptr &&
                      c.rows == nullptr;
  Sums sums{args, direct, nullptr, panels * kCols};
  if (!direct && k_blocks > 1)
    sums.partial = static_cast<float*>(ThreadScratch(m * sums.ld * 4, 1));
  for (int64_t kb = 0; kb < k_blocks; ++kb) {
    // Blocks of K begin at whole elements.
    const Piece block = PieceOf(Pieces(args.K, kStep), k_blocks, kb);
    const int64_t k0 = block.begin * kStep, k = Min(block.size * kStep, args.K - k0);
    const auto width_of = [&](int64_t j) { return n - j <= kLanes ? kLanes : kCols; };
    for (int64_t j = 0; j < n; j += kCols)
      Pack<kPairs>(args.b, b_along, j0 + j, static_cast<int>(Min(n - j, kCols)), width_of(j), k0, k,
                   packed_b + j * block.size);
    for (int64_t mb = 0; mb < m_blocks; ++mb) {
      const Piece rows = PieceOf(m, m_blocks, mb);
      const int64_t tiles = Pieces(rows.size, kRows);
      for (int64_t t = 0; t < tiles; ++t) {
        const Piece tile = PieceOf(rows.size, tiles, t);
        const int height = static_cast<int>(tile.size);
        Pack<kPairs>(args.a, a_along, i0 + rows.begin + tile.begin, height, height, k0, k,
                     packed_a + tile.begin * block.size);
      }
      for (int64_t j = 0; j < n; j += kCols) {
        const int width = width_of(j);
        for (int64_t t = 0; t < tiles; ++t) {
          const Piece tile = PieceOf(rows.size, tiles, t);
          const int height = static_cast<int>(tile.size);
          Tile(sums, MicroFor<kPairs>(height, width / kLanes), block.size,
               packed_a + tile.begin * block.size, packed_b + j * block.size, i0,
               rows.begin + tile.begin, height, j0, j, static_cast<int>(Min(n - j, kCols)), width,
               kb == 0, kb == k_blocks - 1);
        }
      }
    }
  }
}

}  // namespace

void PackedBlock(const MatmulArgs& args, int64_t i0, int64_t m, int64_t j0, int64_t n) {
#ifdef __AVX512BF16__
  if (args.precision == Precision::kBF16) return Block<true>(args, i0, m, j0, n);
#endif
  Block<false>(args, i0, m, j0, n);
}

}  // namespace tessera::TESSERA_ISA
