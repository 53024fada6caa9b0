#include "kernels/rows/softmax.h"

#include <cmath>

#include "core/parallel.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/vmath.h"

namespace tessera::TESSERA_ISA {
namespace {

// body(row, first column of the group, what it sees), the groups of all rows in parallel.
template <class T, class Body>
void ForGroups(const SoftmaxArgs<T>& a, Body&& body) {
  ParallelRanges(a.B * a.T * a.G, RowGrain(a.W), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i / a.G, i % a.G * a.W, a.RangeOf(i / a.G));
  });
}

template <class T>
void Clear(T* y, int64_t count) {
  if (count > 0) __builtin_memset(y, 0, static_cast<size_t>(count) * sizeof(T));
}

// Of n values; `e` is scratch for as many. False if there are none but -infinity.
template <class T>
bool SoftmaxOf(const T* x, int64_t n, float scale, float* e, T* y) {
  const float most = MaxOver(n, [&](int64_t i, int m) { return Load(x + i, m) * scale; });
  if (most == -INFINITY) return false;
  const float sum = SumOver(n, [&](int64_t i, int m) {
    const Vec v = KeepFirst(Exp(Load(x + i, m) * scale - most), m);
    Store(e + i, v);
    return v;
  });
  const float share = 1 / sum;
  ForLanes(n, [&](int64_t i, int m) { Store(y + i, Load(e + i) * share, m); });
  return true;
}

template <class T>
void Softmax(const SoftmaxArgs<T>& a) {
  ForGroups(a, [&](int64_t row, int64_t column, auto range) {
    auto* const e = static_cast<float*>(ThreadScratch((a.W + kLanes) * 4));
    const T* const x = a.x.Row(row) + column;
    T* const y = a.y.Row(row) + column;
    const int64_t n = range.high - range.low;
    if (n == 0 || !SoftmaxOf(x + range.low, n, a.scale, e, y + range.low)) return Clear(y, a.W);
    Clear(y, range.low);
    Clear(y + range.high, a.W - range.high);
  });
}

template <class T>
void SoftmaxGrad(const Gradient<SoftmaxArgs<T>>& g) {
  const SoftmaxArgs<T>& a = g.forward;
  const Grad mode = g.d.x.mode;
  ForGroups(a, [&](int64_t row, int64_t column, auto range) {
    const T* const y = a.y.Row(row) + column + range.low;
    const T* const dy = g.d.y.Row(row) + column + range.low;
    T* const dx = g.d.x.Row(row) + column;
    const int64_t n = range.high - range.low;
    const float dot =
        SumOver(n, [&](int64_t i, int m) { return Load(y + i, m) * Load(dy + i, m); });
    ForLanes(n, [&](int64_t i, int m) {
      const Vec v = Load(y + i, m) * (Load(dy + i, m) - dot) * a.scale;
      PutGrad(dx + range.low + i, v, m, mode);
    });
    if (mode == Grad::kAccumulate) return;
    Clear(dx, range.low);
    Clear(dx + range.high, a.W - range.high);
  });
}

}  // namespace

TESSERA_KERNEL_WITH_GRAD(Softmax)

}  // namespace tessera::TESSERA_ISA
