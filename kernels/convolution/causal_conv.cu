#include "kernels/convolution/causal_conv.h"
#include "kernels/cuda/functions.h"
#include "kernels/cuda/grid.h"
#include "kernels/cuda/reduce.h"

namespace tessera::TESSERA_DEVICE {
namespace {

// How far back the taps of token t reach: not before the start of its document.
template <class T>
__device__ __forceinline__ int64_t Reach(const CausalConvArgs<T>& a, int64_t b, int64_t t) {
  const int64_t all = a.W - 1;
  if (a.start.data == nullptr) return all;
  const int64_t since = t - a.start.data[b * a.T + t];
  return since < all ? since : all;
}

// The input of channel c at token t of the chunk, or before it, from the state.
template <class T>
__device__ __forceinline__ float InputAt(const CausalConvArgs<T>& a, int64_t b, int64_t t,
                                         int64_t c) {
  if (t >= 0) return ToFloat(a.x.data[(b * a.T + t) * a.x.stride + c]);
  return a.state.data == nullptr ? 0 : a.state.data[(b * (a.W - 1) + a.W - 1 + t) * a.C + c];
}

// N channels of it at once; 0 before the state.
template <int kW, int N, class T>
__device__ __forceinline__ void ReadInputs(const CausalConvArgs<T>& a, int64_t b, int64_t t,
                                           int64_t c, float (&x)[N]) {
  if (t >= 0) return Load(a.x.data + (b * a.T + t) * a.x.stride + c, x);
#pragma unroll
  for (int i = 0; i < N; ++i) x[i] = t < 1 - kW ? 0 : InputAt(a, b, t, c + i);
}
// The taps of N channels, which lie together.
template <int kW, int N, class T>
__device__ __forceinline__ void ReadTaps(const CausalConvArgs<T>& a, int64_t c, float (&w)[N][kW]) {
  constexpr int kOnce = N > 1 ? 4 : 1;  // N is a multiple of 4, and the taps aligned
  float some[kOnce];
#pragma unroll
  for (int i = 0; i < N * kW; i += kOnce) {
    Load(a.weight.data + c * kW + i, some);
#pragma unroll
    for (int j = 0; j < kOnce; ++j) w[(i + j) / kW][(i + j) % kW] = some[j];
  }
}

constexpr int kThreads = 128, kForwardRun = 32;

// Block (i, r, b): thread j goes through run r of batch row b, for N channels. Their taps, and the
// inputs that the next token will want again, stay in registers, so that each input is read once;
// the next is on its way while one is worked on.
template <int kW, int N, class T>
__global__ void __launch_bounds__(kThreads) ConvKernel(CausalConvArgs<T> a) {
  const GridPlace place =
      PlaceInGrid((a.C + N * kThreads - 1) / (N * kThreads), (a.T + kForwardRun - 1) / kForwardRun);
  const int64_t columns = place.x, run = place.y, b = place.z;
  const int64_t c = N * (columns * kThreads + threadIdx.x);
  if (c >= a.C) return;
  const int64_t begin = run * kForwardRun;
  const int64_t end = begin + kForwardRun < a.T ? begin + kForwardRun : a.T;
  float w[N][kW], bias[N], x[kW][N], next[N];  // x[l]: l tokens back
  ReadTaps(a, c, w);
#pragma unroll
  for (int i = 0; i < N; ++i) bias[i] = a.bias.data == nullptr ? 0 : a.bias.data[c + i];
#pragma unroll
  for (int l = 1; l < kW; ++l) ReadInputs<kW>(a, b, begin - l, c, x[l - 1]);
  ReadInputs<kW>(a, b, begin, c, next);
#pragma unroll 4
  for (int64_t t = begin; t < end; ++t) {
#pragma unroll
    for (int l = kW - 1; l > 0; --l)
#pragma unroll
      for (int i = 0; i < N; ++i) x[l][i] = x[l - 1][i];
#pragma unroll
    for (int i = 0; i < N; ++i) x[0][i] = next[i];
    if (t + 1 < end) ReadInputs<kW>(a, b, t + 1, c, next);
    const int64_t reach = Reach(a, b, t);
    float u[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      u[i] = bias[i];
#pragma unroll
      for (int l = 0; l < kW; ++l)
        if (l <= reach) u[i] += w[i][kW - 1 - l] * x[l][i];
      if (a.activation == ConvActivation::kSilu) u[i] = Silu(u[i]);
    }
    Store(a.y.data + (b * a.T + t) * a.y.stride + c, u);
  }
}

// Row b (W-1) + i of the last state: an input, or 0 where no later token can reach it.
template <class T>
struct LastStateBody {
  CausalConvArgs<T> a;
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t c) const {
    const int64_t kept = a.W - 1, b = row / kept, token = a.T - kept + row % kept;
    const bool seen = a.T - 1 - token <= Reach(a, b, a.T - 1);
    a.last_state.data[row * a.C + c] = seen ? InputAt(a, b, token, c) : 0;
  }
};

template <int kW, class T>
void ConvOfWidth(const CausalConvArgs<T>& a) {
  if constexpr (kW <= CausalConvArgs<T>::kMaxWidth) {
    if (a.W != kW) return ConvOfWidth<kW + 1, T>(a);
    constexpr int N = kVector<T>;
    const bool wide = a.C % N == 0 && Aligned(a.x.data, a.x.stride) &&
                      Aligned(a.y.data, a.y.stride) && Aligned(a.weight.data, 4);
    const int64_t per = wide ? N : 1;
    Launch(wide ? ConvKernel<kW, N, T> : ConvKernel<kW, 1, T>,
           FoldedGrid(CeilDivide(a.C, per * kThreads), CeilDivide(a.T, kForwardRun), a.B),
           dim3{kThreads}, 0, a);
  }
}

template <class T>
void CausalConv(const CausalConvArgs<T>& a) {
  if (a.B * a.T * a.C > 0) ConvOfWidth<2, T>(a);
  if (a.last_state.data != nullptr)
    ForElements<float>(a.B * (a.W - 1), a.C, false, LastStateBody<T>{a});
}

// dL/d(last state) of the place of a token, 0 where it has none.
template <class T>
__device__ __forceinline__ float LastGrad(const Gradient<CausalConvArgs<T>>& g, int64_t b,
                                          int64_t token, int64_t c) {
  const CausalConvArgs<T>& a = g.forward;
  const int64_t back = a.T - 1 - token;
  if (g.d.last_state.data == nullptr || back > a.W - 2 || back > Reach(a, b, a.T - 1)) return 0;
  return g.d.last_state.data[(b * (a.W - 1) + a.W - 2 - back) * a.C + c];
}

// Block (i, r, b): thread j goes through run r of batch row b from its last token to its first, for
// N channels. It keeps dL/du of the kW - 1 tokens after the present one, which it computes again
// where they belong to the next run, the inputs before it, and the sums for taps and bias of its
// run. Neighbours have neighbouring channels; nothing is shared.
template <int kW, int N, class T>
__global__ void __launch_bounds__(kThreads) ConvGradKernel(Gradient<CausalConvArgs<T>> g) {
  const CausalConvArgs<T>& a = g.forward;
  const GridPlace place =
      PlaceInGrid((a.C + N * kThreads - 1) / (N * kThreads), g.forward.cuda_runs());
  const int64_t columns = place.x, run = place.y, b = place.z;
  const int64_t c = N * (columns * kThreads + threadIdx.x);
  if (c >= a.C) return;
  const int64_t begin = run * g.forward.kCudaRun,
                end = begin + g.forward.kCudaRun < a.T ? begin + g.forward.kCudaRun : a.T;
  float w[N][kW], bias[N], sum[kW + 1][N] = {}, du[kW][N] = {}, x[kW][N], next_x[N] = {},
                                    dy[N] = {};
  int64_t reach[kW];
  ReadTaps(a, c, w);
#pragma unroll
  for (int i = 0; i < N; ++i) bias[i] = a.bias.data == nullptr ? 0 : a.bias.data[c + i];
#pragma unroll
  for (int j = 0; j < kW; ++j) reach[j] = -1;  // of a token past the end: nobody
  const int64_t last = (end + kW - 1 < a.T ? end + kW - 1 : a.T) - 1;
#pragma unroll
  for (int l = 1; l < kW; ++l) ReadInputs<kW>(a, b, last + 1 - l, c, x[l]);
  for (int64_t t = last; t >= begin; --t) {
    const int64_t row = b * a.T + t;
    ReadInputs<kW>(a, b, t - (kW - 1), c, next_x);
    if (g.d.y.data != nullptr) Load(g.d.y.data + row * g.d.y.stride + c, dy);
#pragma unroll
    for (int l = kW - 1; l > 0; --l) {
      reach[l] = reach[l - 1];
#pragma unroll
      for (int i = 0; i < N; ++i) du[l][i] = du[l - 1][i];
    }
    reach[0] = Reach(a, b, t);
    float dx[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
#pragma unroll
      for (int l = 0; l + 1 < kW; ++l) x[l][i] = x[l + 1][i];
      x[kW - 1][i] = next_x[i];
      float u = bias[i];
#pragma unroll
      for (int l = 0; l < kW; ++l)
        if (l <= reach[0]) u += w[i][kW - 1 - l] * x[l][i];
      du[0][i] = a.activation == ConvActivation::kSilu ? dy[i] * SiluSlope(u) : dy[i];
      if (t >= end) continue;
      sum[kW][i] += du[0][i];
#pragma unroll
      for (int l = 0; l < kW; ++l)
        if (l <= reach[0]) sum[kW - 1 - l][i] += du[0][i] * x[l][i];
      dx[i] = LastGrad(g, b, t, c + i);
#pragma unroll
      for (int l = 0; l < kW; ++l)
        if (l <= reach[l]) dx[i] += w[i][kW - 1 - l] * du[l][i];
    }
    if (t < end && g.d.x.data != nullptr)
      PutGrad(g.d.x.data + row * g.d.x.stride + c, dx, g.d.x.mode);
  }
  float* part = g.d.workspace.data + (b * g.forward.cuda_runs() + run) * (kW + 1) * a.C + c;
#pragma unroll
  for (int j = 0; j <= kW; ++j)
#pragma unroll
    for (int i = 0; i < N; ++i) part[j * a.C + i] = sum[j][i];
  if (run > 0 || g.d.state.data == nullptr) return;
    // Place j of the state is token j - (kW - 1); token t <= j reaches it, and du[t] is t's.
#pragma unroll
  for (int j = 0; j < kW - 1; ++j)
#pragma unroll
    for (int i = 0; i < N; ++i) {
      float d = LastGrad(g, b, j - (kW - 1), c + i);
#pragma unroll
      for (int t = 0; t <= j; ++t)
        if (t + kW - 1 - j <= reach[t]) d += w[i][j - t] * du[t][i];
      PutGrad(g.d.state.data + (b * (kW - 1) + j) * a.C + c + i, d, g.d.state.mode);
    }
}

// dweight[c, j] = the sum over runs; a thread a tap of a channel.
template <class T>
__global__ void __launch_bounds__(kThreads) TapGradKernel(Gradient<CausalConvArgs<T>> g) {
  const int64_t C = g.forward.C, W = g.forward.W, j = blockIdx.y;
  const int64_t c = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (c >= C) return;
  float sum = 0;
#pragma unroll 8
  for (int64_t p = 0; p < g.forward.B * g.forward.cuda_runs(); ++p)
    sum += g.d.workspace.data[(p * (W + 1) + j) * C + c];
  PutGrad(g.d.weight.data + c * W + j, sum, g.d.weight.mode);
}

// Whether rows can be read four elements at a time.
template <class T>
bool AlignedFour(const T* p, int64_t stride) {
  return reinterpret_cast<uintptr_t>(p) % (4 * sizeof(T)) == 0 && stride % 4 == 0;
}

template <int kW, class T>
void GradOfWidth(const Gradient<CausalConvArgs<T>>& g) {
  const CausalConvArgs<T>& a = g.forward;
  if constexpr (kW <= CausalConvArgs<T>::kMaxWidth) {
    if (a.W != kW) return GradOfWidth<kW + 1, T>(g);
    const auto columns = static_cast<unsigned>(CeilDivide(a.C, kThreads));
    const bool wide = a.C % 4 == 0 && AlignedFour(a.x.data, a.x.stride) &&
                      AlignedFour(g.d.y.data, g.d.y.stride) &&
                      AlignedFour(g.d.x.data, g.d.x.stride) && AlignedFour(a.weight.data, 4);
    Launch(wide ? ConvGradKernel<kW, 4, T> : ConvGradKernel<kW, 1, T>,
           FoldedGrid(CeilDivide(a.C, kThreads * (wide ? 4 : 1)), g.forward.cuda_runs(), a.B),
           dim3{kThreads}, 0, g);
    if (g.d.weight.data != nullptr)
      Launch(TapGradKernel<T>, dim3{columns, kW}, dim3{kThreads}, 0, g);
    if (g.d.bias.data != nullptr)
      LaunchSumParts(g.d.workspace.data + kW * a.C, a.B * g.forward.cuda_runs(), (kW + 1) * a.C,
                     a.C, g.d.bias.data, g.d.bias.mode);
  }
}

template <class T>
void CausalConvGrad(const Gradient<CausalConvArgs<T>>& g) {
  GradOfWidth<2, T>(g);
}

}  // namespace

TESSERA_DEVICE_KERNEL(CausalConv)
TESSERA_DEVICE_KERNEL_OF(Gradient<CausalConvArgs<float>>, CausalConvGrad)
TESSERA_DEVICE_KERNEL_OF(Gradient<CausalConvArgs<bf16>>, CausalConvGrad)

}  // namespace tessera::TESSERA_DEVICE
