#ifndef TESSERA_KERNELS_CPU_SIMD_H_
#define TESSERA_KERNELS_CPU_SIMD_H_

#include <immintrin.h>

#include <cstdint>

#include "core/dtype.h"
#include "kernels/cpu/isa.h"

// Vectors of floats as wide as the instruction set this file is compiled for (8 or 16), with the
// compiler's own operators
// (+ - * / < and c ? a : b) and the loads, stores and reductions that kernels need. Element types
// are float and bf16; arithmetic is always fp32. Only kernels/*.cc include this file.

namespace tessera::TESSERA_ISA {

#ifdef __AVX512F__
inline constexpr int kLanes = 16;
#else
inline constexpr int kLanes = 8;
#endif
typedef float Vec __attribute__((vector_size(kLanes * 4), may_alias));
typedef int32_t IVec __attribute__((vector_size(kLanes * 4), may_alias));

inline Vec Splat(float x) { return x - Vec{}; }  // x + 0 would turn -0 into 0, so it costs an add
inline IVec ISplat(int32_t x) { return x - IVec{}; }
inline Vec Bits(IVec v) { return reinterpret_cast<Vec>(v); }
inline IVec Bits(Vec v) { return reinterpret_cast<IVec>(v); }
inline Vec Abs(Vec a) { return Bits(Bits(a) & ISplat(0x7fffffff)); }

// a > b ? a : b and a < b ? a : b, so b where either is NaN.
#ifdef __AVX512F__
inline Vec Max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
inline Vec Min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
inline Vec Load(const float* p) { return _mm512_loadu_ps(p); }
inline void Store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
inline Vec Widen(__m256i h) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
inline __m256i Narrow(Vec v) { return (__m256i)_mm512_cvtneps_pbh(v); }
inline Vec Load(const bf16* p) { return Widen(_mm256_loadu_si256((const __m256i*)p)); }
inline void Store(bf16* p, Vec v) { _mm256_storeu_si256((__m256i*)p, Narrow(v)); }
// The first n of a vector, 0 <= n <= kLanes; the rest of a load is 0. Where n is kLanes, as it is
// in the body of ForLanes, these are plain loads and stores.
inline __mmask16 FirstLanes(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }
inline Vec Load(const float* p, int64_t n) {
  if (n == kLanes) return Load(p);
  return _mm512_maskz_loadu_ps(FirstLanes(n), p);
}
inline void Store(float* p, Vec v, int64_t n) {
  if (n == kLanes) return Store(p, v);
  _mm512_mask_storeu_ps(p, FirstLanes(n), v);
}
inline Vec Load(const bf16* p, int64_t n) {
  if (n == kLanes) return Load(p);
  return Widen(_mm256_maskz_loadu_epi16(FirstLanes(n), p));
}
inline void Store(bf16* p, Vec v, int64_t n) {
  if (n == kLanes) return Store(p, v);
  _mm256_mask_storeu_epi16(p, FirstLanes(n), Narrow(v));
}
inline Vec Sqrt(Vec v) { return _mm512_sqrt_ps(v); }
inline Vec Round(Vec v) {
  return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// a b + c and a b - c, rounded once whatever the compiler contracts.
inline Vec Fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
inline Vec Fms(Vec a, Vec b, Vec c) { return _mm512_fmsub_ps(a, b, c); }
inline IVec ToInt(Vec v) { return (IVec)_mm512_cvtps_epi32(v); }
// Whether any lane of a comparison's result is true.
inline bool Any(IVec v) { return _mm512_movepi32_mask((__m512i)v) != 0; }
inline Vec ToFloat(IVec v) { return _mm512_cvtepi32_ps((__m512i)v); }
#else
inline Vec Max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
inline Vec Min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
inline Vec Load(const float* p) { return _mm256_loadu_ps(p); }
inline void Store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
inline Vec Load(const bf16* p) {
  return _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16));
}
inline __m128i Narrow(Vec v) {
  const IVec u = Bits(v);
  const IVec rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
  const IVec quiet = (u >> 16) | 0x40;
  const __m256i r = (__m256i)((v == v) ? rounded : quiet) & _mm256_set1_epi32(0xffff);
  return _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
}
inline void Store(bf16* p, Vec v) { _mm_storeu_si128((__m128i*)p, Narrow(v)); }
inline __m256i FirstLanes(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline Vec Load(const float* p, int64_t n) {
  if (n == kLanes) return Load(p);
  return _mm256_maskload_ps(p, FirstLanes(n));
}
inline void Store(float* p, Vec v, int64_t n) {
  if (n == kLanes) return Store(p, v);
  _mm256_maskstore_ps(p, FirstLanes(n), v);
}
inline Vec Load(const bf16* p, int64_t n) {
  if (n == kLanes) return Load(p);
  bf16 t[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) t[i] = p[i];
  return Load(t);
}
inline void Store(bf16* p, Vec v, int64_t n) {
  if (n == kLanes) return Store(p, v);
  bf16 t[kLanes];
  Store(t, v);
  for (int64_t i = 0; i < n; ++i) p[i] = t[i];
}
inline Vec Sqrt(Vec v) { return _mm256_sqrt_ps(v); }
inline Vec Round(Vec v) {
  return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline Vec Fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
inline Vec Fms(Vec a, Vec b, Vec c) { return _mm256_fmsub_ps(a, b, c); }
inline IVec ToInt(Vec v) { return (IVec)_mm256_cvtps_epi32(v); }
inline bool Any(IVec v) { return _mm256_movemask_ps((__m256)v) != 0; }
inline Vec ToFloat(IVec v) { return _mm256_cvtepi32_ps((__m256i)v); }
#endif

// Sums and maxima over the lanes, always by the same tree.
inline float Sum(Vec v) {
  float t[kLanes];
  Store(t, v);
  for (int w = kLanes / 2; w > 0; w /= 2)
    for (int i = 0; i < w; ++i) t[i] += t[i + w];
  return t[0];
}
inline float MaxOf(Vec v) {
  float t[kLanes];
  Store(t, v);
  for (int w = kLanes / 2; w > 0; w /= 2)
    for (int i = 0; i < w; ++i) t[i] = t[i] > t[i + w] ? t[i] : t[i + w];
  return t[0];
}

// body(i, n) over [0, count) in steps of a vector: n is kLanes, or fewer in the last step.
template <class Body>
inline __attribute__((always_inline)) void ForLanes(int64_t count, Body&& body) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) body(i, kLanes);
  if (i < count) body(i, static_cast<int>(count - i));
}

}  // namespace tessera::TESSERA_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_H_
