#ifndef TESSERA_KERNELS_CPU_VMATH_H_
#define TESSERA_KERNELS_CPU_VMATH_H_

#include <cmath>

#include "kernels/cpu/simd.h"

// exp, log, sin, cos, tanh, sigmoid and their kin over vectors, within 1-2 ULP of the true value
// over the whole range (sigmoid within 2.5; tests/kernels/vmath_test.cc measures them), the same
// code for every instruction set. Infinities and NaN behave as in <cmath>; results below the
// smallest normal float are 0.

namespace tessera::TESSERA_ISA {

// exp(x) = 2^n exp(r), |r| <= ln(2)/2: a degree-6 polynomial in r. The power of two is added to
// the exponent. NaN passes through Min and Max, which return their second argument for it.
inline Vec Exp(Vec x) {
  const Vec c = Min(Splat(88.72283f), Max(Splat(-87.33654f), x));
  const Vec n = Round(c * 1.44269504f);
  Vec r = c - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  Vec p = Splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const Vec y = p * (r * r) + r + 1.0f;
  const Vec scaled = Bits(Bits(y) + (ToInt(n) << 23));
  const Vec low = x < -87.33654f ? Vec{} : scaled;
  return x > 88.72283f ? Splat(__builtin_inff()) : low;
}

// log(x) = e ln(2) + log(m), sqrt(1/2) <= m < sqrt(2).
inline Vec Log(Vec x) {
  const Vec tiny = x < 1.17549435e-38f ? x * 8388608.0f : x;  // subnormals, scaled by 2^23
  IVec e = ((Bits(tiny) >> 23) & 0xff) - 126;
  Vec m = Bits((Bits(tiny) & 0x007fffff) | 0x3f000000);  // [1/2, 1)
  const auto below = m < 0.707106781f;
  e = e + below;  // a true lane is -1
  m = (below ? m + m : m) - 1.0f;
  Vec p = Splat(7.0376836292e-2f);
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  const Vec z = m * m;
  const Vec ef = ToFloat(e) - (x < 1.17549435e-38f ? Splat(23.0f) : Splat(0.0f));
  Vec y = p * m * z + ef * -2.12194440e-4f - 0.5f * z;
  y = m + y + ef * 0.693359375f;
  y = x == 0.0f ? Splat(-__builtin_inff()) : y;
  y = x > 3.4e38f && x == Splat(__builtin_inff()) ? x : y;
  return x < 0.0f || x != x ? Splat(__builtin_nanf("")) : y;
}

// log(1 + x) for x >= 0, exact where 1 + x rounds.
inline Vec Log1p(Vec x) {
  const Vec u = 1.0f + x;
  return u == 1.0f ? x : Log(u) - ((u - 1.0f) - x) / u;
}

inline Vec Sigmoid(Vec x) { return 1.0f / (1.0f + Exp(-x)); }

inline Vec Tanh(Vec x) {
  const Vec a = Abs(x), z = x * x;
  Vec p = Splat(-5.70498872745e-3f);
  p = p * z + 2.06390887954e-2f;
  p = p * z - 5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z - 3.33332819422e-1f;
  const Vec small = p * z * x + x;
  const Vec t = 1.0f - 2.0f / (Exp(a + a) + 1.0f);
  const Vec large =
      Bits((Bits(t) & 0x7fffffff) | (Bits(x) & ISplat(static_cast<int32_t>(0x80000000))));
  return a < 0.625f ? small : large;
}

// log(1 + exp(x)) and its negative mirror log(sigmoid(x)) = -softplus(-x).
inline Vec Softplus(Vec x) { return Max(x, Splat(0.0f)) + Log1p(Exp(-Abs(x))); }
inline Vec LogSigmoid(Vec x) { return -Softplus(-x); }

// The normal distribution function and density at x. With a = |x|, Phi(-a) = exp(-a^2/2) t P(t),
// t = 1 / (1 + 0.3 a), P a polynomial of degree 9 fitted to the relative error (3e-9). The rounding
// of a^2 is carried, since the tail's relative error is half its absolute one.
struct NormalAt {
  Vec cdf, density;
};
inline NormalAt Normal(Vec x) {
  const Vec a = Min(Splat(14.0f), Abs(x)), square = a * a;
  const Vec e = Exp(-0.5f * square) * (1.0f - 0.5f * Fms(a, a, square));
  const Vec t = 1.0f / (1.0f + 0.3f * a);
  Vec p = Splat(-2.058467641e-2f);
  p = p * t + 1.122172326e-1f;
  p = p * t - 2.276797891e-1f;
  p = p * t + 1.910423487e-1f;
  p = p * t - 7.877799869e-2f;
  p = p * t + 9.579340369e-2f;
  p = p * t + 7.852181792e-2f;
  p = p * t + 1.102055535e-1f;
  p = p * t + 1.195756197e-1f;
  p = p * t + 1.196864843e-1f;
  const Vec tail = e * (t * p);
  return {x < 0.0f ? tail : 1.0f - tail, e * 0.398942280f};
}
inline Vec Gelu(Vec x) { return x * Normal(x).cdf; }

// sin and cos of x = n pi/2 + r, |r| <= pi/4, with pi/2 in three parts, by polynomials in r. That
// is exact enough to kTurns; beyond it, which is rare, the lanes concerned are <cmath>'s.
template <bool kCos>
inline Vec SinOrCos(Vec x) {
  constexpr float kTurns = 30000;
  const Vec n = Round(x * 0.636619772f);
  Vec r = Fma(n, Splat(-1.57079637f), x);
  r = Fma(n, Splat(4.37113883e-08f), r);
  r = Fma(n, Splat(1.71512451e-15f), r);
  const Vec z = r * r;
  Vec s = Splat(-1.9515295891e-4f);
  s = s * z + 8.3321608736e-3f;
  s = s * z - 1.6666654611e-1f;
  s = s * z * r + r;
  Vec c = Splat(2.443315711809948e-5f);
  c = c * z - 1.388731625493765e-3f;
  c = c * z + 4.166664568298827e-2f;
  c = c * z * z - 0.5f * z + 1.0f;
  const IVec quarter = ToInt(n) + (kCos ? 1 : 0);
  Vec y = (quarter & 1) != 0 ? c : s;
  y = Bits(Bits(y) ^ ((quarter & 2) << 30));
  const IVec far = Bits(Abs(x)) > Bits(Splat(kTurns));  // NaN and infinities too
  if (Any(far))
    for (int i = 0; i < kLanes; ++i)
      if (far[i] != 0)
        y[i] = static_cast<float>(kCos ? std::cos(double{x[i]}) : std::sin(double{x[i]}));
  return y;
}
inline Vec Sin(Vec x) { return SinOrCos<false>(x); }
inline Vec Cos(Vec x) { return SinOrCos<true>(x); }

inline Vec Silu(Vec x) { return x * Sigmoid(x); }
inline Vec SiluGrad(Vec x) {
  const Vec s = Sigmoid(x);
  return s * (1.0f + x * (1.0f - s));
}

}  // namespace tessera::TESSERA_ISA

#endif  // TESSERA_KERNELS_CPU_VMATH_H_
