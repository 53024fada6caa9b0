#include "kernels/rows/reduce.h"

#include <cmath>

#include "core/parallel.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/vmath.h"

namespace tessera::TESSERA_ISA {
namespace {

// body(row, group), the groups of all rows in parallel.
template <class T, class Body>
void ForGroups(const ReduceArgs<T>& a, Body&& body) {
  ParallelRanges(a.rows() * a.G, RowGrain(a.W), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i / a.G, i % a.G);
  });
}

template <class T>
float SumOf(const T* x, int64_t n) {
  return SumOver(n, [&](int64_t i, int m) { return Load(x + i, m); });
}
template <class T>
float LargestOf(const T* x, int64_t n) {
  return MaxOver(n, [&](int64_t i, int m) { return Load(x + i, m); });
}
template <class T>
float LseOf(const T* x, int64_t n) {
  const float most = LargestOf(x, n);
  if (std::isinf(most)) return most;
  return most + std::log(SumOver(
                    n, [&](int64_t i, int m) { return KeepFirst(Exp(Load(x + i, m) - most), m); }));
}
template <class T>
float ValueOf(Reduction reduction, const T* x, int64_t n) {
  if (reduction == Reduction::kMax) return LargestOf(x, n);
  if (reduction == Reduction::kLse) return LseOf(x, n);
  const float sum = SumOf(x, n);
  return reduction == Reduction::kMean ? sum / static_cast<float>(n) : sum;
}

template <class T>
void Reduce(const ReduceArgs<T>& a) {
  ForGroups(a, [&](int64_t row, int64_t group) {
    const float v = ValueOf(a.reduction, a.x.Row(row) + group * a.W, a.W);
    Store(a.y.Row(row) + group, Splat(v), 1);
    if (a.lse) a.lse.Row(row)[group] = v;
  });
}

// The first of n values that is `value`; n if none is.
template <class T>
int64_t FirstOf(const T* x, int64_t n, float value) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int m = static_cast<int>(n - i < kLanes ? n - i : kLanes);
    const auto equal = Load(x + i, m) == Splat(value);
    if (!Any(equal)) continue;
    for (int lane = 0; lane < m; ++lane)
      if (equal[lane] != 0) return i + lane;
  }
  return n;
}

template <class T>
void ReduceGrad(const Gradient<ReduceArgs<T>>& g) {
  const ReduceArgs<T>& a = g.forward;
  const Grad mode = g.d.x.mode;
  ForGroups(a, [&](int64_t row, int64_t group) {
    const T* const x = a.x.Row(row) + group * a.W;
    T* const dx = g.d.x.Row(row) + group * a.W;
    float dy = Load(g.d.y.Row(row) + group, 1)[0];
    if (a.reduction == Reduction::kLse) {
      const float kept = a.lse.Row(row)[group], lse = kept == -INFINITY ? 0 : kept;
      return ForLanes(
          a.W, [&](int64_t i, int m) { PutGrad(dx + i, Exp(Load(x + i, m) - lse) * dy, m, mode); });
    }
    if (a.reduction == Reduction::kMax) {
      const int64_t first = FirstOf(x, a.W, LargestOf(x, a.W));
      if (mode == Grad::kOverwrite)
        ForLanes(a.W, [&](int64_t i, int m) { Store(dx + i, Vec{}, m); });
      if (first < a.W) PutGrad(dx + first, Splat(dy), 1, mode);
      return;
    }
    if (a.reduction == Reduction::kMean) dy /= static_cast<float>(a.W);
    ForLanes(a.W, [&](int64_t i, int m) { PutGrad(dx + i, Splat(dy), m, mode); });
  });
}

}  // namespace

TESSERA_KERNEL_WITH_GRAD(Reduce)

}  // namespace tessera::TESSERA_ISA
