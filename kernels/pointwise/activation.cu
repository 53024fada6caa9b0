#include "kernels/cuda/functions.h"
#include "kernels/cuda/vector.h"
#include "kernels/pointwise/activation.h"

// Each element is read once, computed and written once: the floor is the bytes at copy bandwidth.

namespace tessera::TESSERA_DEVICE {
namespace {

template <class T>
struct ActivateBody {
  ActivationArgs<T> a;
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t c) const {
    float x[N];
    Load(a.x.Row(row) + c, x);
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = a.scale * ValueOf(a.f, x[i]);
    Store(a.y.Row(row) + c, x);
  }
};

template <class T>
struct ActivationGradBody {
  Gradient<ActivationArgs<T>> g;
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t c) const {
    const ActivationArgs<T>& a = g.forward;
    float x[N] = {}, dx[N];
    if (a.x.data != nullptr) Load(a.x.Row(row) + c, x);
    Load(g.d.y.Row(row) + c, dx);
#pragma unroll
    for (int i = 0; i < N; ++i) dx[i] *= TangentOf(a.f, x[i]).slope * a.scale;
    PutGrad(g.d.x.Row(row) + c, dx, g.d.x.mode);
  }
};

template <class T>
struct GatedBody {
  GatedArgs<T> a;
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t c) const {
    float g[N], u[N];
    Load(a.g.Row(row) + c, g);
    Load(a.u.Row(row) + c, u);
#pragma unroll
    for (int i = 0; i < N; ++i) u[i] *= ValueOf(a.f, g[i]);
    Store(a.y.Row(row) + c, u);
  }
};

template <class T>
struct GatedGradBody {
  Gradient<GatedArgs<T>> grad;
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t c) const {
    const GatedArgs<T>&a = grad.forward, &d = grad.d;
    float g[N], u[N], dy[N];
    Load(a.g.Row(row) + c, g);
    Load(a.u.Row(row) + c, u);
    Load(d.y.Row(row) + c, dy);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const Tangent f = TangentOf(a.f, g[i]);
      g[i] = dy[i] * u[i] * f.slope;
      u[i] = dy[i] * f.value;
    }
    if (d.g) PutGrad(d.g.Row(row) + c, g, d.g.mode);
    if (d.u) PutGrad(d.u.Row(row) + c, u, d.u.mode);
  }
};

template <class T>
struct AddBody {
  AddArgs<T> a;
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t c) const {
    float x[N], f[N];
    Load(a.x.Row(row) + c, x);
    Load(a.f.Row(row) + c, f);
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] += a.scale * f[i];
    Store(a.y.Row(row) + c, x);
  }
};

template <class T>
void Activate(const ActivationArgs<T>& a) {
  const bool aligned = Aligned(a.x) && Aligned(a.y);
  ForElements<T>(a.rows, a.C, aligned, ActivateBody<T>{a});
}
template <class T>
void ActivationGrad(const Gradient<ActivationArgs<T>>& g) {
  const bool aligned = Aligned(g.forward.x) && Aligned(g.d.y) && Aligned(g.d.x);
  ForElements<T>(g.forward.rows, g.forward.C, aligned, ActivationGradBody<T>{g});
}
template <class T>
void Gated(const GatedArgs<T>& a) {
  const bool aligned = Aligned(a.g) && Aligned(a.u) && Aligned(a.y);
  ForElements<T>(a.rows, a.C, aligned, GatedBody<T>{a});
}
template <class T>
void GatedGrad(const Gradient<GatedArgs<T>>& grad) {
  const GatedArgs<T>&a = grad.forward, &d = grad.d;
  const bool aligned = Aligned(a.g) && Aligned(a.u) && Aligned(d.y) && Aligned(d.g) && Aligned(d.u);
  ForElements<T>(a.rows, a.C, aligned, GatedGradBody<T>{grad});
}
template <class T>
void Add(const AddArgs<T>& a) {
  const bool aligned = Aligned(a.x) && Aligned(a.f) && Aligned(a.y);
  ForElements<T>(a.rows, a.C, aligned, AddBody<T>{a});
}

}  // namespace

TESSERA_DEVICE_KERNEL_OF(ActivationArgs<float>, Activate)
TESSERA_DEVICE_KERNEL_OF(ActivationArgs<bf16>, Activate)
TESSERA_DEVICE_KERNEL_OF(Gradient<ActivationArgs<float>>, ActivationGrad)
TESSERA_DEVICE_KERNEL_OF(Gradient<ActivationArgs<bf16>>, ActivationGrad)
TESSERA_DEVICE_KERNEL_WITH_GRAD(Gated)
TESSERA_DEVICE_KERNEL(Add)

}  // namespace tessera::TESSERA_DEVICE
