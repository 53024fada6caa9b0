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
    Load(a.x + row * a.x_stride + c, x);
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = a.scale * ValueOf(a.f, x[i]);
    Store(a.y + row * a.y_stride + c, x);
  }
};

template <class T>
struct ActivationGradBody {
  ActivationGradArgs<T> a;
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t c) const {
    float x[N] = {}, dx[N];
    if (a.x != nullptr) Load(a.x + row * a.x_stride + c, x);
    Load(a.dy + row * a.dy_stride + c, dx);
#pragma unroll
    for (int i = 0; i < N; ++i) dx[i] *= TangentOf(a.f, x[i]).slope * a.scale;
    PutGrad(a.dx + row * a.dx_stride + c, dx, a.dx_mode);
  }
};

template <class T>
struct GatedBody {
  GatedArgs<T> a;
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t c) const {
    float g[N], u[N];
    Load(a.g + row * a.g_stride + c, g);
    Load(a.u + row * a.u_stride + c, u);
#pragma unroll
    for (int i = 0; i < N; ++i) u[i] *= ValueOf(a.f, g[i]);
    Store(a.y + row * a.y_stride + c, u);
  }
};

template <class T>
struct GatedGradBody {
  GatedGradArgs<T> a;
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t c) const {
    float g[N], u[N], dy[N];
    Load(a.g + row * a.g_stride + c, g);
    Load(a.u + row * a.u_stride + c, u);
    Load(a.dy + row * a.dy_stride + c, dy);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const Tangent f = TangentOf(a.f, g[i]);
      g[i] = dy[i] * u[i] * f.slope;
      u[i] = dy[i] * f.value;
    }
    if (a.dg != nullptr) PutGrad(a.dg + row * a.dg_stride + c, g, a.dg_mode);
    if (a.du != nullptr) PutGrad(a.du + row * a.du_stride + c, u, a.du_mode);
  }
};

template <class T>
struct AddBody {
  AddArgs<T> a;
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t c) const {
    float x[N], f[N];
    Load(a.x + row * a.x_stride + c, x);
    Load(a.f + row * a.f_stride + c, f);
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] += a.scale * f[i];
    Store(a.y + row * a.y_stride + c, x);
  }
};

template <class T>
void Activate(const ActivationArgs<T>& a) {
  const bool aligned = Aligned(a.x, a.x_stride) && Aligned(a.y, a.y_stride);
  ForElements<T>(a.rows, a.C, aligned, ActivateBody<T>{a});
}
template <class T>
void ActivationGrad(const ActivationGradArgs<T>& a) {
  const bool aligned =
      Aligned(a.x, a.x_stride) && Aligned(a.dy, a.dy_stride) && Aligned(a.dx, a.dx_stride);
  ForElements<T>(a.rows, a.C, aligned, ActivationGradBody<T>{a});
}
template <class T>
void Gated(const GatedArgs<T>& a) {
  const bool aligned =
      Aligned(a.g, a.g_stride) && Aligned(a.u, a.u_stride) && Aligned(a.y, a.y_stride);
  ForElements<T>(a.rows, a.C, aligned, GatedBody<T>{a});
}
template <class T>
void GatedGrad(const GatedGradArgs<T>& a) {
  const bool aligned = Aligned(a.g, a.g_stride) && Aligned(a.u, a.u_stride) &&
                       Aligned(a.dy, a.dy_stride) && Aligned(a.dg, a.dg_stride) &&
                       Aligned(a.du, a.du_stride);
  ForElements<T>(a.rows, a.C, aligned, GatedGradBody<T>{a});
}
template <class T>
void Add(const AddArgs<T>& a) {
  const bool aligned =
      Aligned(a.x, a.x_stride) && Aligned(a.f, a.f_stride) && Aligned(a.y, a.y_stride);
  ForElements<T>(a.rows, a.C, aligned, AddBody<T>{a});
}

}  // namespace

TESSERA_DEVICE_KERNEL_OF(ActivationArgs<float>, Activate)
TESSERA_DEVICE_KERNEL_OF(ActivationArgs<bf16>, Activate)
TESSERA_DEVICE_KERNEL(ActivationGrad)
TESSERA_DEVICE_KERNEL(Gated)
TESSERA_DEVICE_KERNEL(GatedGrad)
TESSERA_DEVICE_KERNEL(Add)

}  // namespace tessera::TESSERA_DEVICE
