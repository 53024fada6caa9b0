#ifndef TESSERA_KERNELS_CPU_ROWS_H_
#define TESSERA_KERNELS_CPU_ROWS_H_

#include "kernels/cost.h"
#include "kernels/cpu/simd.h"

// What kernels that go through rows of channels share: gradients that overwrite or add, and sums
// along a row.

namespace tessera::TESSERA_ISA {
namespace {

template <class T>
inline __attribute__((always_inline)) void PutGrad(T* p, Vec v, int n, Grad mode) {
  Store(p, mode == Grad::kAccumulate ? Load(p, n) + v : v, n);
}

// v in the first n lanes, `other` in the others.
inline __attribute__((always_inline)) Vec KeepFirst(Vec v, int n, Vec other = Vec{}) {
  if (n == kLanes) return v;
  IVec lane;
  for (int32_t i = 0; i < kLanes; ++i) lane[i] = i;
  return lane < ISplat(n) ? v : other;
}

// The sum of term(i, n) over [0, count), in four running sums so that adds do not wait for one
// another.
template <class Term>
inline __attribute__((always_inline)) float SumOver(int64_t count, Term&& term) {
  Vec s[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes)
    for (int j = 0; j < 4; ++j) s[j] += term(i + j * kLanes, kLanes);
  for (; i + kLanes <= count; i += kLanes) s[0] += term(i, kLanes);
  if (i < count) s[1] += term(i, static_cast<int>(count - i));
  return Sum((s[0] + s[1]) + (s[2] + s[3]));
}

// The largest term(i, n) over [0, count), -infinity if there is none. The lanes of a term from n on
// do not count.
template <class Term>
inline __attribute__((always_inline)) float MaxOver(int64_t count, Term&& term) {
  const Vec least = Splat(-__builtin_inff());
  Vec m[2] = {least, least};
  int64_t i = 0;
  for (; i + 2 * kLanes <= count; i += 2 * kLanes)
    for (int j = 0; j < 2; ++j) m[j] = Max(m[j], term(i + j * kLanes, kLanes));
  for (; i < count; i += kLanes) {
    const int n = static_cast<int>(count - i < kLanes ? count - i : kLanes);
    m[0] = Max(m[0], KeepFirst(term(i, n), n, least));
  }
  return MaxOf(Max(m[0], m[1]));
}

// Rows a chunk of work holds, so that a chunk is some 64 KiB.
inline int64_t RowGrain(int64_t channels) { return 1 + 16384 / (channels + 1); }

}  // namespace
}  // namespace tessera::TESSERA_ISA

#endif  // TESSERA_KERNELS_CPU_ROWS_H_
