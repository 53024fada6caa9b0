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
constexpr int64_t kBlockK = kWide ? 768 : 384;
constexpr int kMaxTiles = kWide ? 6 : 12;  // of rows of a packed at a time
constexpr int64_t kBlockM = kMaxTiles * kRows;

inline int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t Max(int64_t a, int64_t b) { return a > b ? a : b; }
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

// c[kM, kV vectors] = or += scale a b over `k` packed elements: a is [k][kM], b is [k][kV vectors].
template <int kM, int kV, bool kPairs>
void Micro(int64_t k, const float* a, const float* b, float scale, float* c, int64_t ldc,
           bool add) {
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
    for (int j = 0; j < kV; ++j) {
      const Vec v = s[i][j] * scale;
      Store(c + j * kLanes, add ? v + Load(c + j * kLanes) : v);
    }
}

using MicroFn = void (*)(int64_t, const float*, const float*, float, float*, int64_t, bool);
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
void Pack(const Factor& f, bool along, const Panel* panels, int count, int64_t k0, int64_t k) {
  if (f.dtype == DType::kF32) return PackPanels<kPairs, float>(f, along, panels, count, k0, k);
  PackPanels<kPairs, bf16>(f, along, panels, count, k0, k);
}

struct Range {
  int64_t begin, end;
};

// Where rows [i, i + m) and columns [j, j + n) of a product find factors that are not 0: a range of
// K.
Range Inner(const GemmArgs& args, int64_t i, int64_t m, int64_t j, int64_t n) {
  if (args.lower == Lower::kA)
    return args.a.order == Order::kPlain ? Range{0, Min(args.K, i + m)} : Range{i, args.K};
  if (args.lower == Lower::kB)
    return args.b.order == Order::kPlain ? Range{j, args.K} : Range{0, Min(args.K, j + n)};
  return {0, args.K};
}

// Clears what a panel of a lower factor holds above the diagonal, as far as Within reaches: values
// from k0 to `end` of K, `along` if the panel's lines are stored rows.
template <bool kPairs>
void ClearAbove(const Panel& panel, bool along, int64_t k0, int64_t end) {
  constexpr int64_t kStep = kPair<kPairs>, kBytes = 4 / kStep;
  char* const values = reinterpret_cast<char*>(panel.out);
  end = Min(end, Pieces(panel.line + panel.lines, kStep) * kStep);
  for (int64_t k = Max(k0, panel.line / kStep * kStep); k < end; ++k)
    for (int64_t i = 0; i < panel.lines; ++i) {
      if (along ? k <= panel.line + i : panel.line + i <= k) continue;
      const int64_t element = (k - k0) / kStep * panel.width + i;
      __builtin_memset(values + element * 4 + (k - k0) % kStep * kBytes, 0, kBytes);
    }
}

// Where the sums of a block go: straight into an fp32 product, or through Finish.
struct Sums {
  const GemmArgs& args;
  int64_t i0, j0;            // the block's first row and column
  bool direct = true;        // no bias, scatter, rounding or scale of a row
  float* partial = nullptr;  // [rows, ld] of the block, between blocks of K, where not direct
  int64_t ld;
};

// One register tile, from packed elements `k` of a panel of each factor.
void Tile(const Sums& s, MicroFn micro, Range k, const Panel& a, const Panel& b, bool first,
          bool last) {
  const Product& c = s.args.c;
  const int64_t i = a.line, j = b.line, count = k.end - k.begin;
  const float *const from_a = a.out + k.begin * a.width, *const from_b = b.out + k.begin * b.width;
  const bool below = s.args.lower != Lower::kResult || j + b.lines <= i + 1;
  if (s.direct && below && b.lines == b.width) {
    micro(count, from_a, from_b, s.args.scale, static_cast<float*>(c.data) + i * c.stride + j,
          c.stride, !first || c.mode == Grad::kAccumulate);
    return;
  }
  if (s.direct || (first && last)) {
    alignas(64) float tile[kRows * kCols];
    micro(count, from_a, from_b, 1, tile, b.width, false);
    GemmArgs args = s.args;
    if (!first) args.c.mode = Grad::kAccumulate;
    return Finish(args, tile, b.width, i, a.lines, j, b.lines);
  }
  float* partial = s.partial + (i - s.i0) * s.ld + j - s.j0;
  micro(count, from_a, from_b, 1, partial, s.ld, !first);
  if (last) Finish(s.args, partial, s.ld, i, a.lines, j, b.lines);
}

// The packed elements of [k0, k0 + k) that a tile's factors are not 0 at.
template <bool kPairs>
Range Within(const GemmArgs& args, const Panel& a, const Panel& b, int64_t k0, int64_t k) {
  constexpr int64_t kStep = kPair<kPairs>;
  const int64_t elements = Pieces(k, kStep);
  if (args.lower == Lower::kNone || args.lower == Lower::kResult) return {0, elements};
  const Range inner = Inner(args, a.line, a.lines, b.line, b.lines);
  const int64_t begin = Max(inner.begin - k0, 0) / kStep;
  return {Min(begin, elements), Max(Min(begin, elements), Pieces(Min(inner.end - k0, k), kStep))};
}

template <bool kPairs>
void Block(const GemmArgs& args, int64_t i0, int64_t m, int64_t j0, int64_t n) {
  constexpr int64_t kStep = kPair<kPairs>;
  const bool a_along = args.a.order == Order::kPlain;
  const bool b_along = args.b.order == Order::kTransposed;
  const Range inner = Inner(args, i0, m, j0, n);
  const int64_t first_k = Min(inner.begin, args.K) / kStep * kStep;
  const int64_t elements = Pieces(inner.end - first_k, kStep);  // of K, packed
  const int64_t k_blocks = elements == 0 ? 1 : Pieces(elements, kBlockK);
  const int64_t m_blocks = Pieces(m, kBlockM);
  const int64_t b_size = Pieces(n, kCols) * kCols * Min(elements, kBlockK);
  const int64_t a_size = Min(m, kBlockM) * Min(elements, kBlockK) + kMaxTiles * (kSlack + 1);
  auto* packed_b = static_cast<float*>(ThreadScratch((b_size + a_size) * 4, 0));
  const Product& c = args.c;
  Sums sums{.args = args, .i0 = i0, .j0 = j0, .ld = Pieces(n, kCols) * kCols};
  sums.direct = c.dtype == DType::kF32 && args.bias == nullptr && args.row_scale == nullptr &&
                c.rows == nullptr;
  if (!sums.direct && k_blocks > 1)
    sums.partial = static_cast<float*>(ThreadScratch(m * sums.ld * 4, 1));
  for (int64_t kb = 0; kb < k_blocks; ++kb) {
    const Piece block = PieceOf(elements, k_blocks, kb);
    const int64_t k0 = first_k + block.begin * kStep, k = Min(block.size * kStep, inner.end - k0);
    Panel b[kMaxColumns / kCols], a[kMaxTiles];
    int b_count = 0;
    for (int64_t j = 0; j < n; j += kCols)
      b[b_count++] = {.line = j0 + j,
                      .lines = static_cast<int>(Min(n - j, kCols)),
                      .width = n - j <= kLanes ? kLanes : kCols,
                      .out = packed_b + j * block.size};
    Pack<kPairs>(args.b, b_along, b, b_count, k0, k);
    if (args.lower == Lower::kB)
      for (int j = 0; j < b_count; ++j) ClearAbove<kPairs>(b[j], b_along, k0, k0 + k);
    for (int64_t mb = 0; mb < m_blocks; ++mb) {
      const Piece rows = PieceOf(m, m_blocks, mb);
      const int tiles = static_cast<int>(Pieces(rows.size, kRows));
      for (int t = 0; t < tiles; ++t) {
        const Piece tile = PieceOf(rows.size, tiles, t);
        const int height = static_cast<int>(tile.size);
        a[t] = {.line = i0 + rows.begin + tile.begin,
                .lines = height,
                .width = height,
                .out = packed_b + b_size + tile.begin * block.size + t * (kSlack + 1)};
      }
      Pack<kPairs>(args.a, a_along, a, tiles, k0, k);
      if (args.lower == Lower::kA)
        for (int t = 0; t < tiles; ++t) ClearAbove<kPairs>(a[t], a_along, k0, k0 + k);
      for (int j = 0; j < b_count; ++j)
        for (int t = 0; t < tiles; ++t) {
          const bool last = kb == k_blocks - 1;
          if (args.lower == Lower::kResult && b[j].line >= a[t].line + a[t].lines) {
            if (last) FinishZeros(args, a[t].line, a[t].lines, b[j].line, b[j].lines);
            continue;
          }
          Tile(sums, MicroFor<kPairs>(a[t].lines, b[j].width / kLanes),
               Within<kPairs>(args, a[t], b[j], k0, k), a[t], b[j], kb == 0, last);
        }
    }
  }
}

}  // namespace

void PackedBlock(const GemmArgs& args, int64_t i0, int64_t m, int64_t j0, int64_t n) {
  if (args.lower == Lower::kResult) {  // less what lies above the diagonal
    const int64_t columns = Min(n, Max(i0 + m - j0, 0)), above = Min(m, Max(j0 - i0, 0));
    FinishZeros(args, i0, m, j0 + columns, n - columns);
    FinishZeros(args, i0, above, j0, columns);
    i0 += above, m -= above, n = columns;
    if (m == 0 || n == 0) return;
  }
#ifdef __AVX512BF16__
  if (args.precision == Precision::kBF16) return Block<true>(args, i0, m, j0, n);
#endif
  Block<false>(args, i0, m, j0, n);
}

}  // namespace tessera::TESSERA_ISA
