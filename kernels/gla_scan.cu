#include "kernels/cuda/gla_tile.h"
#include "kernels/gla_scan.h"

namespace tessera::TESSERA_DEVICE {
namespace {

// Block (span, h, b): o = (q o since) S + A v, chunk after chunk of a span, whose first state is
// known.
template <class T>
__global__ void __launch_bounds__(kScanThreads) GlaSpanOut(GlaScanArgs<T> a, StateArray states) {
  TESSERA_DYNAMIC_SHARED(float, shared);
  const int64_t span = blockIdx.x, h = blockIdx.y, b = blockIdx.z, size = a.K * a.V;
  const GlaChunk c = TakeChunk(shared, a.K, a.V);
  const Tile S = TakeTile(shared, Padded(a.K), a.V), A = TakeTile(shared, kC, kC);
  FillState<float>(S, a.K, a.V,
                   span > 0             ? StateAt(states, b, span - 1, h, a.H, size)
                   : a.state != nullptr ? a.state + (b * a.H + h) * size
                                        : nullptr);
  const int64_t chunks = ChunksOf(a, span);
  for (int64_t n = 0; n < chunks; ++n) {
    const int64_t t0 = span * kSpan + n * kC;
    FillChunk(a, b, h, t0, c);
    PairScores(c, a.K, A);
    __syncthreads();
    for (int v0 = 0; v0 < a.V; v0 += 64) {
      float o[1][4] = {};
      AddProduct<T, Strip>(
          Padded(a.K), [&](int t, int k) { return c.q(t, k) * c.since(t, k); },
          [&](int k, int v) { return S(k, v0 + v); }, o);
      AddProduct<T, Strip>(
          kC, [&](int t, int s) { return s <= t ? A(t, s) : 0; },
          [&](int s, int v) { return c.v(s, v0 + v); }, o);
      ForOwned<Strip>(o, [&](int t, int v, float x) {
        if (t0 + t < a.T && v0 + v < a.V)
          a.o[(b * a.T + t0 + t) * a.o_stride + h * a.V + v0 + v] = FromFloat<T>(x);
      });
    }
    __syncthreads();  // all have read S
    if (n + 1 < chunks) AdvanceState<T>(c, a.K, a.V, S);
  }
}

// Block (h, b): one token, as in decoding. Thread v has column v of the state, which is read and
// written once, the floor; neighbours have neighbouring columns.
template <class T>
__global__ void __launch_bounds__(kMaxGlaWidth) GlaStep(GlaScanArgs<T> a) {
  const int64_t h = blockIdx.x, b = blockIdx.y, v = threadIdx.x, head = (b * a.H + h) * a.K * a.V;
  if (v >= a.V) return;
  const bool starts = a.position != nullptr && a.position[b] == 0;
  const float value = ToFloat(a.v[b * a.v_stride + h * a.V + v]);
  float o = 0;
  for (int64_t k = 0; k < a.K; ++k) {
    float s = value * ToFloat(a.k[b * a.k_stride + h * a.K + k]);
    if (a.state != nullptr && !starts)
      s += expf(ToFloat(a.g[b * a.g_stride + h * a.K + k])) * a.state[head + k * a.V + v];
    if (a.last_state != nullptr) a.last_state[head + k * a.V + v] = s;
    o += s * ToFloat(a.q[b * a.q_stride + h * a.K + k]);
  }
  a.o[b * a.o_stride + h * a.V + v] = FromFloat<T>(a.scale * o);
}

template <class T>
void GlaScan(const GlaScanArgs<T>& a) {
  CheckSizes(a);
  if (a.B * a.T * a.H == 0) return;
  const auto H = static_cast<unsigned>(a.H), B = static_cast<unsigned>(a.B);
  if (a.T == 1) return Launch(GlaStep<T>, dim3{H, B}, dim3{kMaxGlaWidth}, 0, a);
  const int64_t size = a.K * a.V, decays = a.B * a.spans() * a.H * a.K;
  const bool keep = a.kept != nullptr;
  float* whole = ScratchFloats(a.CudaScratch());
  float* last = whole + decays;
  const StateArray states{keep ? a.kept : last + a.B * a.H * size, a.spans() - 1,
                          a.last_state == nullptr ? nullptr : last};
  LaunchStates<Pass::kForward, T>(a, nullptr, 0, states, whole, a.state, a.last_state,
                                  Grad::kOverwrite);
  Launch(GlaSpanOut<T>, dim3{static_cast<unsigned>(a.spans()), H, B}, dim3{kScanThreads},
         ChunkBytes(a.K, a.V) + TileBytes(Padded(a.K), a.V) + TileBytes(kC, kC), a, states);
}

}  // namespace

TESSERA_DEVICE_KERNEL(GlaScan)

}  // namespace tessera::TESSERA_DEVICE
