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
__device__ __forceinline__ At<N> Read(const NormGradArgs<T>& a, int64_t row, int64_t channel,
                                      float mean, float rstd) {
  At<N> at;
  float z[N];
  Load(a.x + row * a.x_stride + channel, at.x);
  Load(a.dy + row * a.dy_stride + channel, at.dy);
  if (a.gate != NormGate::kNone) Load(a.z + row * a.z_stride + channel, z);
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
__global__ void __launch_bounds__(32 * kWarps) NormGradKernel(NormGradArgs<T> a) {
  const int64_t item = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32, W = a.D / a.G;
  if (item >= a.rows * a.G) return;
  const int64_t row = item / a.G, first = item % a.G * W;
  const int lane = threadIdx.x % 32;
  const float rstd = a.rstd[item], mean = a.kind == NormKind::kLayer ? a.mean[item] : 0;
  const auto gain = [&](int64_t c) {
    return a.gain == nullptr ? 1.0f : a.gain[a.shared_gain ? c : first + c];
  };
  float along = 0, shift = 0;
  for (int64_t c = N * lane; c < W; c += 32 * N) {
    const At<N> at = Read<N>(a, row, first + c, mean, rstd);
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
    const At<N> at = Read<N>(a, row, first + c, mean, rstd);
    float dx[N], dz[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float du = (at.dy[i] * gain(c + i) - at.normal[i] * along - shift) * rstd;
      dz[i] = (before ? du * at.x[i] : at.dy_of_gate[i] * gain(c + i)) * at.slope[i];
      dx[i] = before ? du * at.gate[i] : du;
    }
    if (a.dz != nullptr) PutGrad(a.dz + row * a.dz_stride + first + c, dz, a.dz_mode);
    if (a.dx != nullptr) PutGrad(a.dx + row * a.dx_stride + first + c, dx, a.dx_mode);
  }
}

// Block (i, b): a thread sums N channels over the rows of row block b, in order; neighbours read
// neighbours.
constexpr int kSumThreads = 128;
template <int N, class T>
__global__ void __launch_bounds__(kSumThreads) NormGradSums(NormGradArgs<T> a) {
  const int64_t channel = N * (int64_t{blockIdx.x} * kSumThreads + threadIdx.x);
  if (channel >= a.D) return;
  const int64_t block = blockIdx.y, group = channel / (a.D / a.G), begin = block * a.block_rows();
  const int64_t end = begin + a.block_rows() < a.rows ? begin + a.block_rows() : a.rows;
  float gain[N] = {}, bias[N] = {};
#pragma unroll 4
  for (int64_t row = begin; row < end; ++row) {
    const int64_t item = row * a.G + group;
    const At<N> at =
        Read<N>(a, row, channel, a.kind == NormKind::kLayer ? a.mean[item] : 0, a.rstd[item]);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      gain[i] += at.dy[i] * at.normal[i];
      bias[i] += at.dy[i];
    }
  }
#pragma unroll
  for (int i = 0; i < N; ++i) {
    a.partial[block * 2 * a.D + channel + i] = gain[i];
    a.partial[(block * 2 + 1) * a.D + channel + i] = bias[i];
  }
}

// dgain[c] = the sum over blocks and groups: thread (c, i) adds up every kParts-th of them, and the
// first adds up the parts.
constexpr int kParts = 32;
template <class T>
__global__ void __launch_bounds__(32 * kParts) SharedGainGrad(NormGradArgs<T> a) {
  TESSERA_SHARED(float[kParts][32], part);
  const int64_t c = int64_t{blockIdx.x} * 32 + threadIdx.x, W = a.D / a.G, count = a.blocks() * a.G;
  float sum = 0;
#pragma unroll 8
  for (int64_t i = threadIdx.y; i < count; i += kParts)
    if (c < W) sum += a.partial[i / a.G * 2 * a.D + i % a.G * W + c];
  part[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || c >= W) return;
  sum = 0;
  for (const auto& row : part) sum += row[threadIdx.x];
  PutGrad(a.dgain + c, sum, a.dgain_mode);
}

template <class T>
void NormGrad(const NormGradArgs<T>& a) {
  constexpr int N = kVector<T>;
  const bool wide = a.D / a.G % N == 0 && Aligned(a.x, a.x_stride) && Aligned(a.z, a.z_stride) &&
                    Aligned(a.dy, a.dy_stride) && Aligned(a.dx, a.dx_stride) &&
                    Aligned(a.dz, a.dz_stride);
  if (a.dx != nullptr || a.dz != nullptr)
    Launch(wide ? NormGradKernel<N, T> : NormGradKernel<1, T>,
           dim3{static_cast<unsigned>(CeilDivide(a.rows * a.G, kWarps))}, dim3{32 * kWarps}, 0, a);
  if (a.dgain == nullptr && a.dbias == nullptr) return;
  Launch(wide ? NormGradSums<N, T> : NormGradSums<1, T>,
         dim3{static_cast<unsigned>(CeilDivide(a.D, kSumThreads * (wide ? N : 1))),
              static_cast<unsigned>(a.blocks())},
         dim3{kSumThreads}, 0, a);
  if (a.dgain != nullptr && a.shared_gain)
    Launch(SharedGainGrad<T>, dim3{static_cast<unsigned>(CeilDivide(a.D / a.G, 32))},
           dim3{32, kParts}, 0, a);
  else if (a.dgain != nullptr)
    LaunchSumParts(a.partial, a.blocks(), 2 * a.D, a.D, a.dgain, a.dgain_mode);
  if (a.dbias != nullptr)
    LaunchSumParts(a.partial + a.D, a.blocks(), 2 * a.D, a.D, a.dbias, a.dbias_mode);
}

}  // namespace

TESSERA_DEVICE_KERNEL(NormGrad)

}  // namespace tessera::TESSERA_DEVICE
