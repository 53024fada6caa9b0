#include "kernels/pointwise/activation.h"

#include "core/parallel.h"
#include "kernels/cpu/functions.h"
#include "kernels/cpu/rows.h"

namespace tessera::TESSERA_ISA {
namespace {

// body(row, i, n) over rows of C channels.
template <class Body>
inline void ForElements(int64_t rows, int64_t C, Body&& body) {
  ParallelRanges(rows, RowGrain(C), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      ForLanes(C, [&](int64_t i, int n) { body(row, i, n); });
  });
}

template <class T>
void Activate(const ActivationArgs<T>& a) {
  With(a.f, [&](auto f) {
    ForElements(a.rows, a.C, [&](int64_t row, int64_t i, int n) {
      Store(a.y.Row(row) + i, f.Value(Load(a.x.Row(row) + i, n)) * a.scale, n);
    });
  });
}

template <class T>
void ActivationGrad(const Gradient<ActivationArgs<T>>& grad) {
  const ActivationArgs<T>&a = grad.forward, &d = grad.d;
  With(a.f, [&](auto f) {
    ForElements(a.rows, a.C, [&](int64_t row, int64_t i, int n) {
      const Vec x = a.x.data == nullptr ? Vec{} : Load(a.x.Row(row) + i, n);
      PutGrad(d.x.Row(row) + i, Load(d.y.Row(row) + i, n) * f.At(x).slope * a.scale, n, d.x.mode);
    });
  });
}

template <class T>
void Gated(const GatedArgs<T>& a) {
  With(a.f, [&](auto f) {
    ForElements(a.rows, a.C, [&](int64_t row, int64_t i, int n) {
      const Vec g = Load(a.g.Row(row) + i, n);
      Store(a.y.Row(row) + i, f.Value(g) * Load(a.u.Row(row) + i, n), n);
    });
  });
}

template <class T>
void GatedGrad(const Gradient<GatedArgs<T>>& grad) {
  const GatedArgs<T>&a = grad.forward, &d = grad.d;
  With(a.f, [&](auto f) {
    ForElements(a.rows, a.C, [&](int64_t row, int64_t i, int n) {
      const Tangent g = f.At(Load(a.g.Row(row) + i, n));
      const Vec u = Load(a.u.Row(row) + i, n), dy = Load(d.y.Row(row) + i, n);
      if (d.g) PutGrad(d.g.Row(row) + i, dy * u * g.slope, n, d.g.mode);
      if (d.u) PutGrad(d.u.Row(row) + i, dy * g.value, n, d.u.mode);
    });
  });
}

template <class T>
void Add(const AddArgs<T>& a) {
  ForElements(a.rows, a.C, [&](int64_t row, int64_t i, int n) {
    const Vec f = Load(a.f.Row(row) + i, n);
    Store(a.y.Row(row) + i, Load(a.x.Row(row) + i, n) + a.scale * f, n);
  });
}

}  // namespace

TESSERA_KERNEL_OF(ActivationArgs<float>, Activate)
TESSERA_KERNEL_OF(ActivationArgs<bf16>, Activate)
TESSERA_KERNEL_OF(Gradient<ActivationArgs<float>>, ActivationGrad)
TESSERA_KERNEL_OF(Gradient<ActivationArgs<bf16>>, ActivationGrad)
TESSERA_KERNEL_WITH_GRAD(Gated)
TESSERA_KERNEL(Add)

}  // namespace tessera::TESSERA_ISA
