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
      Store(a.y + row * a.y_stride + i, f.Value(Load(a.x + row * a.x_stride + i, n)) * a.scale, n);
    });
  });
}

template <class T>
void ActivationGrad(const ActivationGradArgs<T>& a) {
  With(a.f, [&](auto f) {
    ForElements(a.rows, a.C, [&](int64_t row, int64_t i, int n) {
      const Vec x = a.x == nullptr ? Vec{} : Load(a.x + row * a.x_stride + i, n);
      const Vec dy = Load(a.dy + row * a.dy_stride + i, n);
      PutGrad(a.dx + row * a.dx_stride + i, dy * f.At(x).slope * a.scale, n, a.dx_mode);
    });
  });
}

template <class T>
void Gated(const GatedArgs<T>& a) {
  With(a.f, [&](auto f) {
    ForElements(a.rows, a.C, [&](int64_t row, int64_t i, int n) {
      const Vec g = Load(a.g + row * a.g_stride + i, n);
      Store(a.y + row * a.y_stride + i, f.Value(g) * Load(a.u + row * a.u_stride + i, n), n);
    });
  });
}

template <class T>
void GatedGrad(const GatedGradArgs<T>& a) {
  With(a.f, [&](auto f) {
    ForElements(a.rows, a.C, [&](int64_t row, int64_t i, int n) {
      const Tangent g = f.At(Load(a.g + row * a.g_stride + i, n));
      const Vec u = Load(a.u + row * a.u_stride + i, n);
      const Vec dy = Load(a.dy + row * a.dy_stride + i, n);
      if (a.dg != nullptr) PutGrad(a.dg + row * a.dg_stride + i, dy * u * g.slope, n, a.dg_mode);
      if (a.du != nullptr) PutGrad(a.du + row * a.du_stride + i, dy * g.value, n, a.du_mode);
    });
  });
}

template <class T>
void Add(const AddArgs<T>& a) {
  ForElements(a.rows, a.C, [&](int64_t row, int64_t i, int n) {
    const Vec f = Load(a.f + row * a.f_stride + i, n);
    Store(a.y + row * a.y_stride + i, Load(a.x + row * a.x_stride + i, n) + a.scale * f, n);
  });
}

}  // namespace

TESSERA_KERNEL_OF(ActivationArgs<float>, Activate)
TESSERA_KERNEL_OF(ActivationArgs<bf16>, Activate)
TESSERA_KERNEL(ActivationGrad)
TESSERA_KERNEL(Gated)
TESSERA_KERNEL(GatedGrad)
TESSERA_KERNEL(Add)

}  // namespace tessera::TESSERA_ISA
