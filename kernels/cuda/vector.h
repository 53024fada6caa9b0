#ifndef TESSERA_KERNELS_CUDA_VECTOR_H_
#define TESSERA_KERNELS_CUDA_VECTOR_H_

#include "core/dtype.h"
#include "kernels/cost.h"
#include "kernels/cuda/device.h"
#include "kernels/view.h"

// Elements of activations in registers: fp32 whatever they are in memory, several to a load, and
// the launch that gives each of a matrix's elements to a thread.

namespace tessera::TESSERA_DEVICE {
namespace {

// Shared memory that a block can have on sm_80, the smallest of the GPUs that these kernels are
// for, less what it has besides its dynamic part.
constexpr size_t kSharedBytes = 163 * 1024 - 256;

// N elements that one instruction loads: 16 bytes for the widest that kernels ask for.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T v[N];
};

template <int N, class T>
__device__ __forceinline__ void Load(const T* p, float (&v)[N]) {
  CheckAligned(p, sizeof(Pack<T, N>));
  const auto pack = *reinterpret_cast<const Pack<T, N>*>(p);
#pragma unroll
  for (int i = 0; i < N; ++i) v[i] = ToFloat(pack.v[i]);
}
template <int N, class T>
__device__ __forceinline__ void Store(T* p, const float (&v)[N]) {
  Pack<T, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) pack.v[i] = FromFloat<T>(v[i]);
  CheckAligned(p, sizeof(Pack<T, N>));
  *reinterpret_cast<Pack<T, N>*>(p) = pack;
}
// Writes a gradient, or adds to it.
template <int N, class T>
__device__ __forceinline__ void PutGrad(T* p, float (&v)[N], Grad mode) {
  if (mode == Grad::kAccumulate) {
    float before[N];
    Load(p, before);
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] += before[i];
  }
  Store(p, v);
}
template <class T>
__device__ __forceinline__ void PutGrad(T* p, float v, Grad mode) {
  *p = FromFloat<T>(mode == Grad::kAccumulate ? ToFloat(*p) + v : v);
}

// Elements a thread loads at once where everything is aligned for it.
template <class T>
inline constexpr int kVector = 16 / sizeof(T);

inline int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Whether rows that start at p, `stride` elements apart, can be read kVector<T> at a time; true of
// a null pointer, which nobody reads.
template <class T>
bool Aligned(const T* p, int64_t stride) {
  return p == nullptr || (reinterpret_cast<uintptr_t>(p) % 16 == 0 &&
                          stride * static_cast<int64_t>(sizeof(T)) % 16 == 0);
}

template <class T>
bool Aligned(const View<T>& v) {
  return Aligned(v.data, v.stride);
}

// Thread (x, y) of block b has row b * blockDim.y + y, and columns N * (x + i * blockDim.x) for
// i = 0, 1, ...: neighbours read neighbours. Nothing is shared, so no barrier.
template <int N, class Body>
__global__ void __launch_bounds__(256) EachElement(int64_t rows, int64_t C, Body body) {
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  for (int64_t c = N * int64_t{threadIdx.x}; c < C; c += N * int64_t{blockDim.x})
    body.template At<N>(row, c);
}

// body.At<N>(row, column) for each N columns of each row; N is kVector<T> where `aligned`, else 1.
template <class T, class Body>
void ForElements(int64_t rows, int64_t C, bool aligned, const Body& body) {
  if (rows == 0 || C == 0) return;
  const bool wide = aligned && C % kVector<T> == 0;
  const int64_t items = wide ? C / kVector<T> : C;
  unsigned x = 1;
  while (x < 256 && x < items) x *= 2;
  const dim3 block{x, 256 / x}, grid{static_cast<unsigned>(CeilDivide(rows, 256 / x))};
  if (wide)
    Launch(EachElement<kVector<T>, Body>, grid, block, 0, rows, C, body);
  else
    Launch(EachElement<1, Body>, grid, block, 0, rows, C, body);
}

}  // namespace
}  // namespace tessera::TESSERA_DEVICE

#endif  // TESSERA_KERNELS_CUDA_VECTOR_H_
