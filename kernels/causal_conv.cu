#include "kernels/causal_conv.h"
#include "kernels/cuda/functions.h"
#include "kernels/cuda/reduce.h"

namespace tessera::TESSERA_DEVICE {
namespace {

// How far back the taps of token t reach: not before the start of its document.
template <class T>
__device__ __forceinline__ int64_t Reach(const CausalConvArgs<T>& a, int64_t b, int64_t t) {
  const int64_t all = a.W - 1;
  if (a.position == nullptr) return all;
  const int64_t position = a.position[b * a.T + t];
  return position < all ? position : all;
}

// The input of channel c at token t of the chunk, or before it, from the state.
template <class T>
__device__ __forceinline__ float InputAt(const CausalConvArgs<T>& a, int64_t b, int64_t t,
                                         int64_t c) {
  if (t >= 0) return ToFloat(a.x[(b * a.T + t) * a.x_stride + c]);
  return a.state == nullptr ? 0 : a.state[(b * (a.W - 1) + a.W - 1 + t) * a.C + c];
}

// A thread has N channels of one token; its W inputs come from cache but for one.
template <class T>
struct ConvBody {
  CausalConvArgs<T> a;
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t c) const {
    const int64_t b = row / a.T, t = row % a.T, reach = Reach(a, b, t);
    float u[N];
#pragma unroll
    for (int i = 0; i < N; ++i) u[i] = a.bias == nullptr ? 0 : a.bias[c + i];
    for (int64_t l = 0; l <= reach; ++l) {
      float x[N];
      if (t - l >= 0) {
        Load(a.x + (row - l) * a.x_stride + c, x);
      } else {
#pragma unroll
        for (int i = 0; i < N; ++i) x[i] = InputAt(a, b, t - l, c + i);
      }
#pragma unroll
      for (int i = 0; i < N; ++i) u[i] += a.weight[(c + i) * a.W + a.W - 1 - l] * x[i];
    }
    if (a.activation == ConvActivation::kSilu) {
#pragma unroll
      for (int i = 0; i < N; ++i) u[i] = Silu(u[i]);
    }
    Store(a.y + row * a.y_stride + c, u);
  }
};

// Row b (W-1) + i of the last state: an input, or 0 where no later token can reach it.
template <class T>
struct LastStateBody {
  CausalConvArgs<T> a;
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t c) const {
    const int64_t kept = a.W - 1, b = row / kept, token = a.T - kept + row % kept;
    const bool seen = a.T - 1 - token <= Reach(a, b, a.T - 1);
    a.last_state[row * a.C + c] = seen ? InputAt(a, b, token, c) : 0;
  }
};

template <class T>
void CausalConv(const CausalConvArgs<T>& a) {
  ForElements<T>(a.B * a.T, a.C, Aligned(a.x, a.x_stride) && Aligned(a.y, a.y_stride),
                 ConvBody<T>{a});
  if (a.last_state != nullptr) ForElements<float>(a.B * (a.W - 1), a.C, false, LastStateBody<T>{a});
}

constexpr int kThreads = 128;

// dL/d(last state) of the place of a token, 0 where it has none.
template <class T>
__device__ __forceinline__ float LastGrad(const CausalConvGradArgs<T>& g, int64_t b, int64_t token,
                                          int64_t c) {
  const CausalConvArgs<T>& a = g.forward;
  const int64_t back = a.T - 1 - token;
  if (g.dlast_state == nullptr || back > a.W - 2 || back > Reach(a, b, a.T - 1)) return 0;
  return g.dlast_state[(b * (a.W - 1) + a.W - 2 - back) * a.C + c];
}

// Block (i, r, b): thread j goes through run r of batch row b from its last token to its first, for
// channel kThreads i + j. It keeps dL/du of the kW - 1 tokens after the present one, which it
// computes again where they belong to the next run, and the sums for taps and bias of its run.
// Neighbours have neighbouring channels; nothing is shared.
template <int kW, class T>
__global__ void __launch_bounds__(kThreads) ConvGradKernel(CausalConvGradArgs<T> g) {
  const CausalConvArgs<T>& a = g.forward;
  const int64_t c = int64_t{blockIdx.x} * kThreads + threadIdx.x, run = blockIdx.y, b = blockIdx.z;
  if (c >= a.C) return;
  const int64_t begin = run * g.kRun, end = begin + g.kRun < a.T ? begin + g.kRun : a.T;
  float w[kW], sum[kW + 1] = {}, du[kW] = {};
  int64_t reach[kW];
#pragma unroll
  for (int j = 0; j < kW; ++j) {
    w[j] = a.weight[c * kW + j];
    reach[j] = -1;  // of a token past the end: nobody
  }
  const float bias = a.bias == nullptr ? 0 : a.bias[c];
  for (int64_t t = (end + kW - 1 < a.T ? end + kW - 1 : a.T) - 1; t >= begin; --t) {
#pragma unroll
    for (int l = kW - 1; l > 0; --l) {
      du[l] = du[l - 1];
      reach[l] = reach[l - 1];
    }
    reach[0] = Reach(a, b, t);
    float x[kW], u = bias;
#pragma unroll
    for (int l = 0; l < kW; ++l) {
      x[l] = l <= reach[0] ? InputAt(a, b, t - l, c) : 0;
      u += w[kW - 1 - l] * x[l];
    }
    const int64_t row = b * a.T + t;
    const float dy = g.dy == nullptr ? 0 : ToFloat(g.dy[row * g.dy_stride + c]);
    du[0] = a.activation == ConvActivation::kSilu ? dy * SiluSlope(u) : dy;
    if (t >= end) continue;
    sum[kW] += du[0];
#pragma unroll
    for (int l = 0; l < kW; ++l) sum[kW - 1 - l] += du[0] * x[l];
    if (g.dx == nullptr) continue;
    float dx = LastGrad(g, b, t, c);
#pragma unroll
    for (int l = 0; l < kW; ++l)
      if (l <= reach[l]) dx += w[kW - 1 - l] * du[l];
    PutGrad(g.dx + row * g.dx_stride + c, dx, g.dx_mode);
  }
  float* part = g.workspace + (b * g.runs() + run) * (kW + 1) * a.C + c;
#pragma unroll
  for (int j = 0; j <= kW; ++j) part[j * a.C] = sum[j];
  if (run > 0 || g.dstate == nullptr) return;
    // Place j of the state is token j - (kW - 1); token t <= j reaches it, and du[t] is t's.
#pragma unroll
  for (int j = 0; j < kW - 1; ++j) {
    float d = LastGrad(g, b, j - (kW - 1), c);
#pragma unroll
    for (int t = 0; t <= j; ++t)
      if (t + kW - 1 - j <= reach[t]) d += w[j - t] * du[t];
    PutGrad(g.dstate + (b * (kW - 1) + j) * a.C + c, d, g.dstate_mode);
  }
}

// dweight[c, j] = the sum over runs; a thread a tap of a channel.
template <class T>
__global__ void __launch_bounds__(kThreads) TapGradKernel(CausalConvGradArgs<T> g) {
  const int64_t C = g.forward.C, W = g.forward.W, j = blockIdx.y;
  const int64_t c = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (c >= C) return;
  float sum = 0;
  for (int64_t p = 0; p < g.forward.B * g.runs(); ++p)
    sum += g.workspace[(p * (W + 1) + j) * C + c];
  PutGrad(g.dweight + c * W + j, sum, g.dweight_mode);
}

template <int kW, class T>
void GradOfWidth(const CausalConvGradArgs<T>& g) {
  const CausalConvArgs<T>& a = g.forward;
  if constexpr (kW <= CausalConvArgs<T>::kMaxWidth) {
    if (a.W != kW) return GradOfWidth<kW + 1, T>(g);
    const auto columns = static_cast<unsigned>(CeilDivide(a.C, kThreads));
    Launch(ConvGradKernel<kW, T>,
           dim3{columns, static_cast<unsigned>(g.runs()), static_cast<unsigned>(a.B)},
           dim3{kThreads}, 0, g);
    if (g.dweight != nullptr) Launch(TapGradKernel<T>, dim3{columns, kW}, dim3{kThreads}, 0, g);
    if (g.dbias != nullptr)
      LaunchSumParts(g.workspace + kW * a.C, a.B * g.runs(), (kW + 1) * a.C, a.C, g.dbias,
                     g.dbias_mode);
  }
}

template <class T>
void CausalConvGrad(const CausalConvGradArgs<T>& g) {
  GradOfWidth<2, T>(g);
}

}  // namespace

TESSERA_DEVICE_KERNEL(CausalConv)
TESSERA_DEVICE_KERNEL(CausalConvGrad)

}  // namespace tessera::TESSERA_DEVICE
