#include "kernels/cuda/vector.h"
#include "kernels/layout/shift.h"

// A thread has N columns of one row: the floor is the bytes at copy bandwidth. Rows of the state
// are few and go one column a thread.

namespace tessera::TESSERA_DEVICE {
namespace {

// The input at token t of sequence b, from the state before the chunk.
template <int N, class T>
__device__ __forceinline__ void AtToken(const ShiftArgs<T>& a, int64_t b, int64_t t, int64_t c,
                                        float (&v)[N]) {
  if (t >= 0) return Load(a.x.Row(b * a.T + t) + c, v);
#pragma unroll
  for (int i = 0; i < N; ++i) v[i] = a.state ? a.state.Row(b * a.n + a.n + t)[c + i] : 0;
}

template <class T>
struct ShiftBody {
  ShiftArgs<T> a;
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t c) const {
    const int64_t b = row / a.T, t = row % a.T;
    float v[N] = {};
    if (a.Sees(b, t, t - a.n)) AtToken(a, b, t - a.n, c, v);
    Store(a.y.Row(row) + c, v);
  }
};

template <class T>
struct LastStateBody {
  ShiftArgs<T> a;
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t c) const {
    const int64_t b = row / a.n, t = a.T - a.n + row % a.n;
    float v[N] = {};
    if (a.Sees(b, a.T - 1, t)) AtToken(a, b, t, c, v);
    Store(a.last_state.Row(row) + c, v);
  }
};

// What the input at token t owes to the token n later and to the last state.
template <int N, class T>
__device__ __forceinline__ void GradAt(const Gradient<ShiftArgs<T>>& g, int64_t b, int64_t t,
                                       int64_t c, float (&v)[N]) {
  const ShiftArgs<T>& a = g.forward;
  const int64_t later = t + a.n;
  if (g.d.y && later < a.T && a.Sees(b, later, t)) Load(g.d.y.Row(b * a.T + later) + c, v);
  if (!g.d.last_state || later < a.T || !a.Sees(b, a.T - 1, t)) return;
#pragma unroll
  for (int i = 0; i < N; ++i) v[i] = g.d.last_state.Row(b * a.n + later - a.T)[c + i];
}

template <class T>
struct InputGradBody {
  Gradient<ShiftArgs<T>> g;
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t c) const {
    float v[N] = {};
    GradAt(g, row / g.forward.T, row % g.forward.T, c, v);
    PutGrad(g.d.x.Row(row) + c, v, g.d.x.mode);
  }
};
template <class T>
struct StateGradBody {
  Gradient<ShiftArgs<T>> g;
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t c) const {
    const int64_t n = g.forward.n;
    float v[N] = {};
    GradAt(g, row / n, row % n - n, c, v);
    PutGrad(g.d.state.Row(row) + c, v, g.d.state.mode);
  }
};

template <class T>
void Shift(const ShiftArgs<T>& a) {
  ForElements<T>(a.B * a.T, a.C, Aligned(a.x) && Aligned(a.y), ShiftBody<T>{a});
  if (a.last_state) ForElements<float>(a.B * a.n, a.C, false, LastStateBody<T>{a});
}
template <class T>
void ShiftGrad(const Gradient<ShiftArgs<T>>& g) {
  const ShiftArgs<T>& a = g.forward;
  if (g.d.x) ForElements<T>(a.B * a.T, a.C, Aligned(g.d.x) && Aligned(g.d.y), InputGradBody<T>{g});
  if (g.d.state) ForElements<float>(a.B * a.n, a.C, false, StateGradBody<T>{g});
}

}  // namespace

TESSERA_DEVICE_KERNEL_WITH_GRAD(Shift)

}  // namespace tessera::TESSERA_DEVICE
