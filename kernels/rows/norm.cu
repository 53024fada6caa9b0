#include "kernels/cuda/functions.h"
#include "kernels/cuda/reduce.h"
#include "kernels/rows/norm.h"

namespace tessera::TESSERA_DEVICE {
namespace {

constexpr int kWarps = 8;

// A warp has one group of W channels of one token; its lanes have N channels each in turn. Sums go
// by shuffles, so there is no barrier. The input is read from memory once and from cache in the
// passes that follow: the floor is the bytes of x, z and y at copy bandwidth.
template <int N, class T>
__global__ void __launch_bounds__(32 * kWarps) NormKernel(NormArgs<T> a) {
  const int64_t item = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32, W = a.D / a.G;
  if (item >= a.rows * a.G) return;
  const int64_t row = item / a.G, first = item % a.G * W;
  const int lane = threadIdx.x % 32;
  T* const x = a.x.Row(row) + first;
  if (a.residual) {
    // What a lane writes here it reads again below, and no other lane does.
    const T *const term = a.first.Row(row) + first, *const residual = a.residual.Row(row) + first;
    for (int64_t c = N * lane; c < W; c += 32 * N) {
      float u[N], r[N];
      Load(term + c, u);
      Load(residual + c, r);
#pragma unroll
      for (int i = 0; i < N; ++i) u[i] += a.residual_scale * r[i];
      Store(x + c, u);
    }
  }
  const T* z = a.gate == NormGate::kNone ? nullptr : a.z.Row(row) + first;
  const auto input = [&](int64_t c, float(&u)[N]) {
    Load(x + c, u);
    if (a.gate != NormGate::kBefore) return;
    float gate[N];
    Load(z + c, gate);
#pragma unroll
    for (int i = 0; i < N; ++i) u[i] *= Silu(gate[i]);
  };
  float u[N], mean = 0, square = 0;
  if (a.kind == NormKind::kLayer) {
    for (int64_t c = N * lane; c < W; c += 32 * N) {
      input(c, u);
#pragma unroll
      for (int i = 0; i < N; ++i) mean += u[i];
    }
    mean = WarpSum(mean) / static_cast<float>(W);
  }
  for (int64_t c = N * lane; c < W; c += 32 * N) {
    input(c, u);
#pragma unroll
    for (int i = 0; i < N; ++i) square += (u[i] - mean) * (u[i] - mean);
  }
  const float rstd = 1 / sqrtf(WarpSum(square) / static_cast<float>(W) + a.eps);
  for (int64_t c = N * lane; c < W; c += 32 * N) {
    const int64_t channel = a.shared_gain ? c : first + c;
    input(c, u);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      u[i] = (u[i] - mean) * rstd;
      if (a.gain) u[i] *= a.gain.data[channel + i];
      if (a.bias) u[i] += a.bias.data[first + c + i];
    }
    if (a.gate == NormGate::kAfter) {
      float gate[N];
      Load(z + c, gate);
#pragma unroll
      for (int i = 0; i < N; ++i) u[i] *= Silu(gate[i]);
    }
    Store(a.y.Row(row) + first + c, u);
  }
  if (lane == 0 && a.rstd) a.rstd.data[item] = rstd;
  if (lane == 0 && a.mean) a.mean.data[item] = mean;
}

template <class T>
void Norm(const NormArgs<T>& a) {
  if (a.rows == 0) return;
  const bool wide = a.D / a.G % kVector<T> == 0 && Aligned(a.x) && Aligned(a.z) && Aligned(a.y) &&
                    Aligned(a.first) && Aligned(a.residual);
  Launch(wide ? NormKernel<kVector<T>, T> : NormKernel<1, T>,
         dim3{static_cast<unsigned>(CeilDivide(a.rows * a.G, kWarps))}, dim3{32 * kWarps}, 0, a);
}

}  // namespace

TESSERA_DEVICE_KERNEL(Norm)

}  // namespace tessera::TESSERA_DEVICE
