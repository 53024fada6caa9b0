#ifndef TESSERA_KERNELS_CUDA_REDUCE_H_
#define TESSERA_KERNELS_CUDA_REDUCE_H_

#include "kernels/cuda/vector.h"

// Sums and maxima over the threads of a warp or a block, by fixed trees: the same bits each time.

namespace tessera::TESSERA_DEVICE {
namespace {

constexpr uint32_t kAllLanes = 0xffffffffu;

template <class T>
__device__ __forceinline__ T WarpSum(T v) {
#pragma unroll
  for (int x = 16; x > 0; x /= 2) v += __shfl_xor_sync(kAllLanes, v, x);
  return v;
}
__device__ __forceinline__ float WarpMax(float v) {
#pragma unroll
  for (int x = 16; x > 0; x /= 2) v = fmaxf(v, __shfl_xor_sync(kAllLanes, v, x));
  return v;
}

// Over the four lanes that have a row of a tensor-core product.
__device__ __forceinline__ float RowSum(float v) {
  v += __shfl_xor_sync(kAllLanes, v, 1);
  return v + __shfl_xor_sync(kAllLanes, v, 2);
}
__device__ __forceinline__ float RowMax(float v) {
  v = fmaxf(v, __shfl_xor_sync(kAllLanes, v, 1));
  return fmaxf(v, __shfl_xor_sync(kAllLanes, v, 2));
}

// combine(warp results) over a block of kThreads, in all threads. Two barriers: `parts` is read by
// all before the next reduction may write it.
template <int kThreads, class T, class InWarp>
__device__ __forceinline__ T BlockReduce(T v, T nothing, InWarp in_warp) {
  static_assert(kThreads % 32 == 0 && kThreads <= 1024);
  TESSERA_SHARED(T[32], parts);
  v = in_warp(v);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
  __syncthreads();
  v = threadIdx.x % 32 < kThreads / 32 ? parts[threadIdx.x % 32] : nothing;
  __syncthreads();
  return in_warp(v);
}
template <int kThreads, class T>
__device__ __forceinline__ T BlockSum(T v) {
  return BlockReduce<kThreads>(v, T{0}, [](T x) { return WarpSum(x); });
}
template <int kThreads>
__device__ __forceinline__ float BlockMax(float v) {
  return BlockReduce<kThreads>(v, -INFINITY, [](float x) { return WarpMax(x); });
}

// Column c of y = the sum over `parts` of partial[part * stride + c], in order; a thread a column.
__global__ void __launch_bounds__(256)
    SumParts(const float* partial, int64_t parts, int64_t stride, int64_t C, float* y, Grad mode) {
  const int64_t c = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (c >= C) return;
  float sum = 0;
#pragma unroll 8
  for (int64_t p = 0; p < parts; ++p) sum += partial[p * stride + c];
  PutGrad(y + c, sum, mode);
}
inline void LaunchSumParts(const float* partial, int64_t parts, int64_t stride, int64_t C, float* y,
                           Grad mode) {
  Launch(SumParts, dim3{static_cast<unsigned>(CeilDivide(C, 256))}, dim3{256}, 0, partial, parts,
         stride, C, y, mode);
}

}  // namespace
}  // namespace tessera::TESSERA_DEVICE

#endif  // TESSERA_KERNELS_CUDA_REDUCE_H_
