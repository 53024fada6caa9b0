#include "kernels/cuda/functions.h"
#include "kernels/cuda/reduce.h"
#include "kernels/rows/norm.h"

// With n the normalised input and h the gradient that reaches it (dy gain, times silu(z) for a gate
// after the norm),
//   du = rstd (h - n mean(h n) - mean(h)),   the last term for a layer norm only,
//   dgain = sum of dy n over rows, dbias = sum of dy.

namespace tessera::TESSERA_DEVICE {
namespace {

constexpr int kWarps = 8;

// N channels of a token, in terms of the norm's output.
template <int N>
struct At {
  float x[N], gate[N], slope[N];  // silu(z) and its derivative; 1 and 0 without a gate
  float normal[N];                // n
  float dy[N];                    // of the norm: dL/dy, times silu(z) for a gate after it
  float dy_of_gate[N];            // dL/d(silu(z)) for a gate after the norm, without the gain
};
template <int N, class T>
__device__ __forceinline__ At<N> Read(const Gradient<NormArgs<T>>& g, int64_t row, int64_t channel,
                                      float mean, float rstd) {
  const NormArgs<T>& a = g.forward;
  At<N> at;
  float z[N];
  Load(a.x.Row(row) + channel, at.x);
  Load(g.d.y.Row(row) + channel, at.dy);
  if (a.gate != NormGate::kNone) Load(a.z.Row(row) + channel, z);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    float u = at.x[i];
    at.gate[i] = 1, at.slope[i] = 0;
    if (a.gate != NormGate::kNone) {
      at.gate[i] = Silu(z[i]);
      at.slope[i] = SiluSlope(z[i]);
      if (a.gate == NormGate::kBefore) u *= at.gate[i];
    }
    at.normal[i] = (u - mean) * rstd;
    at.dy_of_gate[i] = at.dy[i] * at.normal[i];
    if (a.gate == NormGate::kAfter) at.dy[i] *= at.gate[i];
  }
  return at;
}

// A warp has one group of one token, a lane N channels at a time; sums go by shuffles.
template <int N, class T>
__global__ void __launch_bounds__(32 * kWarps) NormGradKernel(Gradient<NormArgs<T>> g) {
  const NormArgs<T>& a = g.forward;
  const int64_t item = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32, W = a.D / a.G;
  if (item >= a.rows * a.G) return;
  const int64_t row = item / a.G, first = item % a.G * W;
  const int lane = threadIdx.x % 32;
  const float rstd = a.rstd.data[item], mean = a.kind == NormKind::kLayer ? a.mean.data[item] : 0;
  const auto gain = [&](int64_t c) {
    return a.gain ? a.gain.data[a.shared_gain ? c : first + c] : 1.0f;
  };
  float along = 0, shift = 0;
  for (int64_t c = N * lane; c < W; c += 32 * N) {
    const At<N> at = Read<N>(g, row, first + c, mean, rstd);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float h = at.dy[i] * gain(c + i);
      along += h * at.normal[i];
      shift += h;
    }
  }
  along = WarpSum(along) / static_cast<float>(W);
  shift = a.kind == NormKind::kLayer ? WarpSum(shift) / static_cast<float>(W) : 0;
  const bool before = a.gate == NormGate::kBefore;
  for (int64_t c = N * lane; c < W; c += 32 * N) {
    const At<N> at = Read<N>(g, row, first + c, mean, rstd);
    float dx[N], dz[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float du = (at.dy[i] * gain(c + i) - at.normal[i] * along - shift) * rstd;
      dz[i] = (before ? du * at.x[i] : at.dy_of_gate[i] * gain(c + i)) * at.slope[i];
      dx[i] = before ? du * at.gate[i] : du;
    }
    if (g.d.z) PutGrad(g.d.z.Row(row) + first + c, dz, g.d.z.mode);
    if (g.d.x) PutGrad(g.d.x.Row(row) + first + c, dx, g.d.x.mode);
  }
}

// Block (i, b): a thread sums N channels over the rows of row block b, in order; neighbours read
// neighbours.
constexpr int kSumThreads = 128;
template <int N, class T>
__global__ void __launch_bounds__(kSumThreads) NormGradSums(Gradient<NormArgs<T>> g) {
  const NormArgs<T>& a = g.forward;
  const int64_t channel = N * (int64_t{blockIdx.x} * kSumThreads + threadIdx.x);
  if (channel >= a.D) return;
  const int64_t block = blockIdx.y, group = channel / (a.D / a.G), begin = block * a.block_rows();
  const int64_t end = begin + a.block_rows() < a.rows ? begin + a.block_rows() : a.rows;
  float gain[N] = {}, bias[N] = {};
#pragma unroll 4
  for (int64_t row = begin; row < end; ++row) {
    const int64_t item = row * a.G + group;
    const At<N> at = Read<N>(g, row, channel, a.kind == NormKind::kLayer ? a.mean.data[item] : 0,
                             a.rstd.data[item]);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      gain[i] += at.dy[i] * at.normal[i];
      bias[i] += at.dy[i];
    }
  }
#pragma unroll
  for (int i = 0; i < N; ++i) {
    g.d.partial.data[block * 2 * a.D + channel + i] = gain[i];
    g.d.partial.data[(block * 2 + 1) * a.D + channel + i] = bias[i];
  }
}

// dgain[c] = the sum over blocks and groups: thread (c, i) adds up every kParts-th of them, and the
// first adds up the parts.
constexpr int kParts = 32;
template <class T>
__global__ void __launch_bounds__(32 * kParts) SharedGainGrad(Gradient<NormArgs<T>> g) {
  const NormArgs<T>& a = g.forward;
  TESSERA_SHARED(float[kParts][32], part);
  const int64_t c = int64_t{blockIdx.x} * 32 + threadIdx.x, W = a.D / a.G, count = a.blocks() * a.G;
  float sum = 0;
#pragma unroll 8
  for (int64_t i = threadIdx.y; i < count; i += kParts)
    if (c < W) sum += g.d.partial.data[i / a.G * 2 * a.D + i % a.G * W + c];
  part[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || c >= W) return;
  sum = 0;
  for (const auto& row : part) sum += row[threadIdx.x];
  PutGrad(g.d.gain.data + c, sum, g.d.gain.mode);
}

template <class T>
void NormGrad(const Gradient<NormArgs<T>>& g) {
  const NormArgs<T>&a = g.forward, &d = g.d;
  constexpr int N = kVector<T>;
  const bool wide = a.D / a.G % N == 0 && Aligned(a.x) && Aligned(a.z) && Aligned(d.y) &&
                    Aligned(d.x) && Aligned(d.z);
  if (d.x || d.z)
    Launch(wide ? NormGradKernel<N, T> : NormGradKernel<1, T>,
           dim3{static_cast<unsigned>(CeilDivide(a.rows * a.G, kWarps))}, dim3{32 * kWarps}, 0, g);
  if (!d.gain && !d.bias) return;
  Launch(wide ? NormGradSums<N, T> : NormGradSums<1, T>,
         dim3{static_cast<unsigned>(CeilDivide(a.D, kSumThreads * (wide ? N : 1))),
              static_cast<unsigned>(a.blocks())},
         dim3{kSumThreads}, 0, g);
  if (d.gain && a.shared_gain)
    Launch(SharedGainGrad<T>, dim3{static_cast<unsigned>(CeilDivide(a.D / a.G, 32))},
           dim3{32, kParts}, 0, g);
  else if (d.gain)
    LaunchSumParts(d.partial.data, a.blocks(), 2 * a.D, a.D, d.gain.data, d.gain.mode);
  if (d.bias)
    LaunchSumParts(d.partial.data + a.D, a.blocks(), 2 * a.D, a.D, d.bias.data, d.bias.mode);
}

}  // namespace

TESSERA_DEVICE_KERNEL_OF(Gradient<NormArgs<float>>, NormGrad)
TESSERA_DEVICE_KERNEL_OF(Gradient<NormArgs<bf16>>, NormGrad)

}  // namespace tessera::TESSERA_DEVICE
