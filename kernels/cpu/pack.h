#ifndef TESSERA_KERNELS_CPU_PACK_H_
#define TESSERA_KERNELS_CPU_PACK_H_

#include "kernels/cpu/simd.h"
#include "kernels/cpu/transpose.h"
#include "kernels/matmul.h"

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

// Lines [line, line + lines) of a factor over [k0, k0 + k), `along` if lines are its stored rows.
// Writes whole vectors in ascending order, so up to 15 elements past the panel are overwritten.
template <bool kPairs, class T>
void PackPanel(const Factor& f, bool along, int64_t line, int lines, int width, int64_t k0,
               int64_t k, float* out) {
  const T* data = static_cast<const T*>(f.data);
  const auto row = [&](int64_t r) { return data + (f.rows ? f.rows[r] : r) * f.stride; };
  constexpr int kStep = kPair<kPairs>;
  if (!along) {
    for (int64_t p = 0; p < k; p += kStep, out += width) {
      const T* a = row(k0 + p) + line;
      const T* b = kPairs && p + 1 < k ? row(k0 + p + 1) + line : nullptr;
      for (int i = 0; i < width; i += kLanes) {
        const int n = lines - i < 0 ? 0 : (lines - i < kLanes ? lines - i : kLanes);
        Store(out + i, n == 0 ? Vec{} : LoadAcross<kPairs>(a + i, b == nullptr ? b : b + i, n));
      }
    }
    return;
  }
  constexpr int kMaxLines = 4 * kLanes;
  const T* rows[kMaxLines];
  for (int i = 0; i < lines; ++i) rows[i] = row(line + i) + k0;
  for (int64_t p = 0; p < k; p += 8 * kStep, out += 8 * width) {
    __m256 r[kMaxLines / 8][8];
    const int64_t elements = (k - p + kStep - 1) / kStep;
    for (int g = 0; g * 8 < width; ++g) {
      for (int i = 0; i < 8; ++i)
        r[g][i] =
            g * 8 + i < lines ? LoadAlong<kPairs>(rows[g * 8 + i] + p, k - p) : _mm256_setzero_ps();
      Transpose8(r[g]);
    }
    for (int i = 0; i < (elements < 8 ? elements : 8); ++i)
      for (int g = 0; g * 8 < width; ++g) _mm256_storeu_ps(out + i * width + g * 8, r[g][i]);
  }
}

}  // namespace
}  // namespace tessera::TESSERA_ISA

#endif  // TESSERA_KERNELS_CPU_PACK_H_
