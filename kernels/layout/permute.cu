#include "kernels/cuda/reduce.h"
#include "kernels/layout/permute.h"

namespace tessera::TESSERA_DEVICE {
namespace {

template <class T>
struct PermuteBody {
  PermuteArgs<T> a;
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t c) const {
    if (row >= *a.used) return;
    *reinterpret_cast<Pack<T, N>*>(a.y + row * a.y_stride + c) =
        *reinterpret_cast<const Pack<T, N>*>(a.x + a.token_of[row] * a.x_stride + c);
  }
};

// A token gathers its slots, so no two threads write the same place.
template <class T>
struct CombineBody {
  CombineArgs<T> a;
  template <int N>
  __device__ __forceinline__ void At(int64_t token, int64_t c) const {
    float sum[N] = {};
    for (int64_t j = 0; j < a.k; ++j) {
      const int64_t slot = token * a.k + j, row = a.row_of[slot];
      if (row < 0) continue;
      const float w = a.weights == CombineWeights::kGiven ? a.weight[slot] : 1;
      float x[N];
      Load(a.x + row * a.x_stride + c, x);
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] += w * x[i];
    }
    PutGrad(a.y + token * a.y_stride + c, sum, a.mode);
  }
};

constexpr int kWarps = 8;

// A warp a row: lanes have its columns, N at a time, and add up <dy, x> by shuffles.
template <int N, class T>
__global__ void __launch_bounds__(32 * kWarps) CombineGradKernel(CombineGradArgs<T> a) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (row >= a.rows) return;
  const int lane = threadIdx.x % 32;
  const int32_t slot = a.slot_of[row];
  float dot = 0;
  if (row < *a.used) {
    const T* dy = a.dy + a.token_of[row] * a.dy_stride;
    const float w = a.weight[slot];
    for (int64_t c = N * lane; c < a.D; c += 32 * N) {
      float d[N], x[N];
      Load(dy + c, d);
      if (a.dweight != nullptr) {
        Load(a.x + row * a.x_stride + c, x);
#pragma unroll
        for (int i = 0; i < N; ++i) dot += d[i] * x[i];
      }
      if (a.dx == nullptr) continue;
#pragma unroll
      for (int i = 0; i < N; ++i) d[i] *= w;
      PutGrad(a.dx + row * a.dx_stride + c, d, a.dx_mode);
    }
  }
  if (a.dweight == nullptr) return;
  dot = WarpSum(dot);
  if (lane == 0) PutGrad(a.dweight + slot, dot, a.dweight_mode);
}

template <class T>
void Permute(const PermuteArgs<T>& a) {
  ForElements<T>(a.rows, a.D, Aligned(a.x, a.x_stride) && Aligned(a.y, a.y_stride),
                 PermuteBody<T>{a});
}
template <class T>
void Combine(const CombineArgs<T>& a) {
  ForElements<T>(a.R, a.D, Aligned(a.x, a.x_stride) && Aligned(a.y, a.y_stride), CombineBody<T>{a});
}
template <class T>
void CombineGrad(const CombineGradArgs<T>& a) {
  if (a.rows == 0) return;
  const bool wide = a.D % kVector<T> == 0 && Aligned(a.x, a.x_stride) &&
                    Aligned(a.dy, a.dy_stride) && Aligned(a.dx, a.dx_stride);
  Launch(wide ? CombineGradKernel<kVector<T>, T> : CombineGradKernel<1, T>,
         dim3{static_cast<unsigned>(CeilDivide(a.rows, kWarps))}, dim3{32 * kWarps}, 0, a);
}

}  // namespace

TESSERA_DEVICE_KERNEL(Permute)
TESSERA_DEVICE_KERNEL(Combine)
TESSERA_DEVICE_KERNEL(CombineGrad)

}  // namespace tessera::TESSERA_DEVICE
