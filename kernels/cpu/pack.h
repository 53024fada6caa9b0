#ifndef TESSERA_KERNELS_CPU_PACK_H_
#define TESSERA_KERNELS_CPU_PACK_H_

#include "kernels/cpu/simd.h"
#include "kernels/cpu/transpose.h"
#include "kernels/product/matmul.h"

// Packing of a factor into panels. A panel holds `width` lines (rows of A or columns of B) over a
// range of K, as [k][width] 32-bit elements: fp32, or pairs of bf16 of k and k+1, which vdpbf16ps
// multiplies. Only gemm.cc includes this file.

namespace tessera::TESSERA_ISA {
namespace {

// Packed elements hold kPair values of K each.
template <bool kPairs>
inline constexpr int kPair = kPairs ? 2 : 1;

// 8 packed elements of a line that is contiguous in K; `n` values are left, 0 beyond.
template <bool kPairs, class T>
inline __m256 LoadAlong(const T* p, int64_t n) {
  constexpr int kValues = 8 * kPair<kPairs>;
  alignas(64) T rest[kValues];
  if (n < kValues) {
    for (int i = 0; i < kValues; ++i) rest[i] = i < n ? p[i] : T(0.0f);
    p = rest;
  }
  if constexpr (!kPairs) {
    if constexpr (sizeof(T) == 4) return _mm256_loadu_ps(p);
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16));
  } else if constexpr (sizeof(T) == 2) {
    return _mm256_castsi256_ps(_mm256_loadu_si256((const __m256i*)p));
  } else {
    if constexpr (kLanes == 16) return _mm256_castsi256_ps((__m256i)Narrow(Load(p)));
    return _mm256_setzero_ps();
  }
}

// A vector of packed elements across lines: values k (p) and k+1 (q; null past the end) of `n`
// lines.
template <bool kPairs, class T>
inline Vec LoadAcross(const T* p, [[maybe_unused]] const T* q, int n) {
  const auto load = [n](const T* x) { return n == kLanes ? Load(x) : Load(x, n); };
  if constexpr (!kPairs) return load(p);
#ifdef __AVX512F__
  const auto bits = [&](const T* x) {
    if constexpr (sizeof(T) == 2) return Bits(load(x));
    return (IVec)_mm512_slli_epi32(_mm512_cvtepu16_epi32(Narrow(load(x))), 16);
  };
  const IVec low = (IVec)_mm512_srli_epi32((__m512i)bits(p), 16);
  return Bits(q == nullptr ? low : (bits(q) | low));
#else
  return Vec{};
#endif
}

// Some lines of a factor, packed. Whole vectors are written in ascending order, so up to kSlack
// elements past the panel are overwritten.
struct Panel {
  int64_t line;  // the first
  int lines, width;
  float* out;
};
constexpr int kSlack = kLanes - 1;

// Stored row r of a factor.
template <class T>
inline const T* RowOf(const Factor& f, int64_t r) {
  return static_cast<const T*>(f.data) + (f.rows ? f.rows[r] : r) * f.stride;
}

// A panel whose lines are stored rows. A step takes a cache line of each row.
template <bool kPairs, class T>
void PackAlong(const Factor& f, const Panel& panel, int64_t k0, int64_t k) {
  constexpr int kStep = kPair<kPairs>, kMaxLines = 2 * kLanes, kPerLine = 64 / sizeof(T);
  constexpr int kTurns = kPerLine / (8 * kStep);  // of 8 packed elements a row
  const T* rows[kMaxLines];
  for (int i = 0; i < panel.lines; ++i) rows[i] = RowOf<T>(f, panel.line + i) + k0;
  const int width = panel.width, groups = (width + 7) / 8;
  float* out = panel.out;
  for (int64_t p = 0; p < k; p += kPerLine, out += kTurns * 8 * width) {
    __m256 r[kTurns][kMaxLines / 8][8];
    for (int g = 0; g < groups; ++g) {
      for (int i = 0; i < 8; ++i) {
        const int line = g * 8 + i;
        if (line < panel.lines) _mm_prefetch(rows[line] + p + 4 * kPerLine, _MM_HINT_T0);
        for (int t = 0; t < kTurns; ++t) {
          const int64_t at = p + t * 8 * kStep;
          r[t][g][i] = line < panel.lines && at < k ? LoadAlong<kPairs>(rows[line] + at, k - at)
                                                    : _mm256_setzero_ps();
        }
      }
      for (int t = 0; t < kTurns; ++t) Transpose8(r[t][g]);
    }
    const int64_t left = (k - p + kStep - 1) / kStep;
    const int steps = static_cast<int>(left < kTurns * 8 ? left : kTurns * 8);
    for (int i = 0; i < steps; ++i)
      for (int g = 0; g < groups; ++g)
        _mm256_storeu_ps(out + i * width + g * 8, r[i / 8][g][i % 8]);
  }
}

// Values [p, p + n) of a panel whose lines are stored columns. What the next call for this panel
// reads, n rows further on, is prefetched: rows lie too far apart for the processor to see it
// coming.
template <bool kPairs, class T>
void PackAcross(const Factor& f, const Panel& panel, int64_t k0, int64_t k, int64_t p, int64_t n) {
  constexpr int kStep = kPair<kPairs>;
  const int lines = panel.lines, width = panel.width;
  float* out = panel.out + p / kStep * width;
  for (const int64_t end = p + n; p < end; p += kStep, out += width) {
    const T* a = RowOf<T>(f, k0 + p) + panel.line;
    const T* b = kPairs && p + 1 < k ? RowOf<T>(f, k0 + p + 1) + panel.line : nullptr;
    const T* next_a = RowOf<T>(f, k0 + (p + n < k ? p + n : p)) + panel.line;
    const T* next_b = RowOf<T>(f, k0 + (p + n + 1 < k ? p + n + 1 : p)) + panel.line;
    for (int i = 0; i < width; i += kLanes) {
      const int left = lines - i;
      _mm_prefetch(next_a + i, _MM_HINT_T0);
      if (kPairs) _mm_prefetch(next_b + i, _MM_HINT_T0);
      Store(out + i, left <= 0 ? Vec{}
                               : LoadAcross<kPairs>(a + i, b == nullptr ? b : b + i,
                                                    left < kLanes ? left : kLanes));
    }
  }
}

// All panels over [k0, k0 + k); `along` if lines are stored rows. Across them, a few stored rows
// are read at a time, from end to end.
template <bool kPairs, class T>
void PackPanels(const Factor& f, bool along, const Panel* panels, int count, int64_t k0,
                int64_t k) {
  if (along) {
    for (int i = 0; i < count; ++i) PackAlong<kPairs, T>(f, panels[i], k0, k);
    return;
  }
  constexpr int64_t kRowsAtOnce = 8;
  for (int64_t p = 0; p < k; p += kRowsAtOnce)
    for (int i = 0; i < count; ++i)
      PackAcross<kPairs, T>(f, panels[i], k0, k, p, k - p < kRowsAtOnce ? k - p : kRowsAtOnce);
}

}  // namespace
}  // namespace tessera::TESSERA_ISA

#endif  // TESSERA_KERNELS_CPU_PACK_H_
