#include "kernels/cuda/functions.h"
#include "kernels/cuda/reduce.h"
#include "kernels/experts/expert_activation.h"

namespace tessera::TESSERA_DEVICE {
namespace {

template <class T>
__device__ __forceinline__ int64_t SlotOf(const ExpertActivationArgs<T>& a, int64_t row) {
  return a.slot_of ? a.slot_of.data[row] : row;
}
template <class T>
__device__ __forceinline__ bool Used(const ExpertActivationArgs<T>& a, int64_t row) {
  return !a.used || row < *a.used.data;
}
template <class T>
__device__ __forceinline__ float WeightOf(const ExpertActivationArgs<T>& a, int64_t row) {
  return a.weight ? a.weight.data[SlotOf(a, row)] : 1;
}

template <class T>
struct ExpertActivationBody {
  ExpertActivationArgs<T> a;
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t c) const {
    if (!Used(a, row)) return;
    const float w = WeightOf(a, row);
    const T* x = a.x.Row(row) + c;
    float v[N], up[N];
    Load(x, v);
    if (a.gating == Gating::kGated) Load(x + a.F, up);
#pragma unroll
    for (int i = 0; i < N; ++i)
      v[i] = w * ValueOf(a.f, v[i]) * (a.gating == Gating::kGated ? up[i] : 1);
    Store(a.y.Row(row) + c, v);
  }
};

constexpr int kWarps = 8;

// A warp a row: lanes have its columns, N at a time, and add up <dy, f(x)> by shuffles.
template <int N, class T>
__global__ void __launch_bounds__(32 * kWarps)
    ExpertActivationGradKernel(Gradient<ExpertActivationArgs<T>> g) {
  const ExpertActivationArgs<T>&a = g.forward, &to = g.d;
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (row >= a.rows) return;
  const int lane = threadIdx.x % 32;
  const bool gated = a.gating == Gating::kGated;
  float dot = 0;
  if (Used(a, row)) {
    const float w = WeightOf(a, row);
    const T* x = a.x.Row(row);
    T* dx = to.x ? to.x.Row(row) : nullptr;
    for (int64_t c = N * lane; c < a.F; c += 32 * N) {
      float in[N], up[N], d[N];
      Load(x + c, in);
      if (gated) Load(x + a.F + c, up);
      Load(to.y.Row(row) + c, d);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const Tangent f = TangentOf(a.f, in[i]);
        const float u = gated ? up[i] : 1;
        dot += d[i] * f.value * u;
        in[i] = d[i] * w * u * f.slope;
        up[i] = d[i] * w * f.value;
      }
      if (dx == nullptr) continue;
      PutGrad(dx + c, in, to.x.mode);
      if (gated) PutGrad(dx + a.F + c, up, to.x.mode);
    }
  }
  if (!to.weight) return;
  dot = WarpSum(dot);
  if (lane == 0) PutGrad(to.weight.data + SlotOf(a, row), dot, to.weight.mode);
}

template <class T>
void ExpertActivation(const ExpertActivationArgs<T>& a) {
  const bool aligned = Aligned(a.x) && Aligned(a.y);
  ForElements<T>(a.rows, a.F, aligned, ExpertActivationBody<T>{a});
}
template <class T>
void ExpertActivationGrad(const Gradient<ExpertActivationArgs<T>>& g) {
  const ExpertActivationArgs<T>& a = g.forward;
  if (a.rows == 0) return;
  const bool wide = a.F % kVector<T> == 0 && Aligned(a.x) && Aligned(g.d.y) && Aligned(g.d.x);
  Launch(wide ? ExpertActivationGradKernel<kVector<T>, T> : ExpertActivationGradKernel<1, T>,
         dim3{static_cast<unsigned>(CeilDivide(a.rows, kWarps))}, dim3{32 * kWarps}, 0, g);
}

}  // namespace

TESSERA_DEVICE_KERNEL_WITH_GRAD(ExpertActivation)

}  // namespace tessera::TESSERA_DEVICE
