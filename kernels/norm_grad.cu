#include "kernels/cuda/functions.h"
#include "kernels/cuda/reduce.h"
#include "kernels/norm.h"

// With n the normalised input and h the gradient that reaches it (dy gain, times silu(z) for a gate
// after the norm),
//   du = rstd (h - n mean(h n) - mean(h)),   the last term for a layer norm only,
//   dgain = sum of dy n over rows, dbias = sum of dy.

namespace tessera::TESSERA_DEVICE {
namespace {

constexpr int kWarps = 8;

// One channel of a token, in terms of the norm's output.
struct At {
  float x, gate, slope;  // silu(z) and its derivative; 1 and 0 without a gate
  float normal;          // n
  float dy;              // of the norm: dL/dy, times silu(z) for a gate after it
  float dy_of_gate;      // dL/d(silu(z)) for a gate after the norm, without the gain
};
template <class T>
__device__ __forceinline__ At Read(const NormGradArgs<T>& a, int64_t row, int64_t channel,
                                   float mean, float rstd) {
  At at{.x = ToFloat(a.x[row * a.x_stride + channel]), .gate = 1, .slope = 0};
  at.dy = ToFloat(a.dy[row * a.dy_stride + channel]);
  float u = at.x;
  if (a.gate != NormGate::kNone) {
    const float z = ToFloat(a.z[row * a.z_stride + channel]);
    at.gate = Silu(z);
    at.slope = SiluSlope(z);
    if (a.gate == NormGate::kBefore) u *= at.gate;
  }
  at.normal = (u - mean) * rstd;
  at.dy_of_gate = at.dy * at.normal;
  if (a.gate == NormGate::kAfter) at.dy *= at.gate;
  return at;
}

// A warp has one group of one token, a lane every 32nd channel; sums go by shuffles.
template <class T>
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
  for (int64_t c = lane; c < W; c += 32) {
    const At at = Read(a, row, first + c, mean, rstd);
    const float h = at.dy * gain(c);
    along += h * at.normal;
    shift += h;
  }
  along = WarpSum(along) / static_cast<float>(W);
  shift = a.kind == NormKind::kLayer ? WarpSum(shift) / static_cast<float>(W) : 0;
  for (int64_t c = lane; c < W; c += 32) {
    const At at = Read(a, row, first + c, mean, rstd);
    const float du = (at.dy * gain(c) - at.normal * along - shift) * rstd;
    const bool before = a.gate == NormGate::kBefore;
    if (a.dz != nullptr)
      PutGrad(a.dz + row * a.dz_stride + first + c,
              (before ? du * at.x : at.dy_of_gate * gain(c)) * at.slope, a.dz_mode);
    if (a.dx != nullptr)
      PutGrad(a.dx + row * a.dx_stride + first + c, before ? du * at.gate : du, a.dx_mode);
  }
}

// Block (i, b): thread c sums channel 256 i + c over the rows of row block b, in order; neighbours
// read neighbours.
template <class T>
__global__ void __launch_bounds__(256) NormGradSums(NormGradArgs<T> a) {
  const int64_t channel = int64_t{blockIdx.x} * 256 + threadIdx.x, block = blockIdx.y;
  if (channel >= a.D) return;
  const int64_t group = channel / (a.D / a.G), begin = block * a.block_rows();
  float gain = 0, bias = 0;
  for (int64_t row = begin; row < begin + a.block_rows() && row < a.rows; ++row) {
    const int64_t item = row * a.G + group;
    const At at =
        Read(a, row, channel, a.kind == NormKind::kLayer ? a.mean[item] : 0, a.rstd[item]);
    gain += at.dy * at.normal;
    bias += at.dy;
  }
  a.partial[block * 2 * a.D + channel] = gain;
  a.partial[(block * 2 + 1) * a.D + channel] = bias;
}

// dgain[c] = the sum over blocks and groups; a thread a channel of the gain.
template <class T>
__global__ void __launch_bounds__(256) SharedGainGrad(NormGradArgs<T> a) {
  const int64_t c = int64_t{blockIdx.x} * 256 + threadIdx.x, W = a.D / a.G;
  if (c >= W) return;
  float sum = 0;
  for (int64_t b = 0; b < a.blocks(); ++b)
    for (int64_t g = 0; g < a.G; ++g) sum += a.partial[b * 2 * a.D + g * W + c];
  PutGrad(a.dgain + c, sum, a.dgain_mode);
}

template <class T>
void NormGrad(const NormGradArgs<T>& a) {
  if (a.dx != nullptr || a.dz != nullptr)
    Launch(NormGradKernel<T>, dim3{static_cast<unsigned>(CeilDivide(a.rows * a.G, kWarps))},
           dim3{32 * kWarps}, 0, a);
  if (a.dgain == nullptr && a.dbias == nullptr) return;
  const auto columns = static_cast<unsigned>(CeilDivide(a.D, 256));
  Launch(NormGradSums<T>, dim3{columns, static_cast<unsigned>(a.blocks())}, dim3{256}, 0, a);
  if (a.dgain != nullptr && a.shared_gain)
    Launch(SharedGainGrad<T>, dim3{columns}, dim3{256}, 0, a);
  else if (a.dgain != nullptr)
    LaunchSumParts(a.partial, a.blocks(), 2 * a.D, a.D, a.dgain, a.dgain_mode);
  if (a.dbias != nullptr)
    LaunchSumParts(a.partial + a.D, a.blocks(), 2 * a.D, a.D, a.dbias, a.dbias_mode);
}

}  // namespace

TESSERA_DEVICE_KERNEL(NormGrad)

}  // namespace tessera::TESSERA_DEVICE
