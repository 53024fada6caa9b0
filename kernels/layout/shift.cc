#include "kernels/layout/shift.h"

#include "core/parallel.h"
#include "kernels/cpu/rows.h"

namespace tessera::TESSERA_ISA {
namespace {

// body(b, t) over [first, end) of every sequence.
template <class Body>
void ForTokens(int64_t B, int64_t first, int64_t end, int64_t C, Body&& body) {
  const int64_t tokens = end - first;
  ParallelRanges(B * tokens, RowGrain(C), [&](int64_t begin, int64_t last) {
    for (int64_t i = begin; i < last; ++i) body(i / tokens, first + i % tokens);
  });
}

// The input at token t of sequence b, from the state before the chunk: use(row), or use(nullptr).
template <class T, class Use>
void AtToken(const ShiftArgs<T>& a, int64_t b, int64_t t, Use&& use) {
  if (t >= 0) return use(a.x.Row(b * a.T + t));
  if (a.state) return use(a.state.Row(b * a.n + a.n + t));
  use(static_cast<const T*>(nullptr));
}

template <class X, class Y>
void PutRow(const X* x, int64_t C, Y* y) {
  ForLanes(C, [&](int64_t c, int k) { Store(y + c, x == nullptr ? Vec{} : Load(x + c, k), k); });
}

template <class T>
void Shift(const ShiftArgs<T>& a) {
  ForTokens(a.B, 0, a.T, a.C, [&](int64_t b, int64_t t) {
    T* y = a.y.Row(b * a.T + t);
    if (!a.Sees(b, t, t - a.n)) return PutRow(static_cast<const T*>(nullptr), a.C, y);
    AtToken(a, b, t - a.n, [&](const auto* x) { PutRow(x, a.C, y); });
  });
  if (!a.last_state) return;
  ForTokens(a.B, a.T - a.n, a.T, a.C, [&](int64_t b, int64_t t) {
    float* to = a.last_state.Row(b * a.n + t - (a.T - a.n));
    if (!a.Sees(b, a.T - 1, t)) return PutRow(static_cast<const float*>(nullptr), a.C, to);
    AtToken(a, b, t, [&](const auto* x) { PutRow(x, a.C, to); });
  });
}

// What the input at token t owes to the token n later and to the last state.
template <class T>
Vec GradAt(const Gradient<ShiftArgs<T>>& g, int64_t b, int64_t t, int64_t c, int lanes) {
  const ShiftArgs<T>& a = g.forward;
  const int64_t later = t + a.n;
  Vec v{};
  if (g.d.y && later < a.T && a.Sees(b, later, t)) v += Load(g.d.y.Row(b * a.T + later) + c, lanes);
  if (g.d.last_state && later >= a.T && a.Sees(b, a.T - 1, t))
    v += Load(g.d.last_state.Row(b * a.n + later - a.T) + c, lanes);
  return v;
}

template <class T>
void ShiftGrad(const Gradient<ShiftArgs<T>>& g) {
  const ShiftArgs<T>& a = g.forward;
  const auto put = [&](const auto& d, int64_t row, int64_t b, int64_t t) {
    ForLanes(a.C,
             [&](int64_t c, int k) { PutGrad(d.Row(row) + c, GradAt(g, b, t, c, k), k, d.mode); });
  };
  if (g.d.x)
    ForTokens(a.B, 0, a.T, a.C, [&](int64_t b, int64_t t) { put(g.d.x, b * a.T + t, b, t); });
  if (g.d.state)
    ForTokens(a.B, -a.n, 0, a.C,
              [&](int64_t b, int64_t t) { put(g.d.state, b * a.n + a.n + t, b, t); });
}

}  // namespace

TESSERA_KERNEL_WITH_GRAD(Shift)

}  // namespace tessera::TESSERA_ISA
