#include "kernels/cuda/gla_tile.h"

// Names as in kernels/gla_scan_grad.cc: S the state at a chunk's start, dS the gradient of the one
// at its end.

namespace tessera::TESSERA_DEVICE {
namespace {

struct GlaGrads {
  Tile dq, dk;  // [16, K]: at first S do and dS v
  Tile dout;    // [16, V]
  Tile A, dA;   // [16, 16]
};

// dq, dk and dg of one channel over a chunk, by one thread: each query t walks back, decaying, and
// meets what came forward from the keys. `passing` is what the state that passes the chunk by owes
// to each of its decays.
template <class T>
__device__ __forceinline__ void ChannelGrads(const GlaScanGradArgs<T>& g, const GlaChunk& c,
                                             const GlaGrads& w, int k, float passing, int64_t row,
                                             int64_t h, int64_t count) {
  const GlaScanArgs<T>& a = g.forward;
  float dk[kC] = {}, dg[kC] = {}, x[kC], entering = 0;
  // From the last query to the first, so that what enters the chunk up to t is summed on the way.
#pragma unroll 1
  for (int t = static_cast<int>(count) - 1; t >= 0; --t) {
    float walk = c.q(t, k);
#pragma unroll
    for (int s = kC - 1; s >= 0; --s) {
      if (s > t) continue;
      x[s] = walk;
      walk *= c.decay(s, k);
    }
    float z = 0;
#pragma unroll
    for (int s = 0; s < kC; ++s) {
      if (s > t) continue;
      const float decayed = z * c.decay(s, k), dA = w.dA(t, s);
      dg[s] += x[s] * decayed;
      dk[s] += x[s] * dA;
      z = decayed + c.k(s, k) * dA;
    }
    const float from_start = w.dq(t, k) * c.since(t, k);
    entering += from_start * c.q(t, k);
    if (g.dq != nullptr)
      PutGrad(g.dq + (row + t) * g.dq_stride + h * a.K + k, (from_start + z) * a.scale, g.dq_mode);
    w.dq(t, k) = entering;
  }
  float leaving = passing;
#pragma unroll
  for (int t = 0; t < kC; ++t) {
    if (t >= count) continue;
    const float from_end = w.dk(t, k) * c.until(t, k), decay = dg[t] + w.dq(t, k) + leaving;
    leaving += from_end * c.k(t, k);
    if (g.dk != nullptr)
      PutGrad(g.dk + (row + t) * g.dk_stride + h * a.K + k, from_end + dk[t], g.dk_mode);
    if (g.dg != nullptr) PutGrad(g.dg + (row + t) * g.dg_stride + h * a.K + k, decay, g.dg_mode);
  }
}

// Block (span, h, b): the gradients of a span, chunk after chunk from the last. The state at a
// chunk's start is made again from that at the span's.
template <class T>
__global__ void __launch_bounds__(kScanThreads)
    GlaGradKernel(GlaScanGradArgs<T> g, StateArray dstates) {
  const GlaScanArgs<T>& a = g.forward;
  TESSERA_DYNAMIC_SHARED(float, shared);
  const int64_t span = blockIdx.x, h = blockIdx.y, b = blockIdx.z, size = a.K * a.V;
  const GlaChunk c = TakeChunk(shared, a.K, a.V);
  const Tile S = TakeTile(shared, Padded(a.K), a.V), dS = TakeTile(shared, Padded(a.K), a.V);
  GlaGrads w;
  w.dq = TakeTile(shared, kC, a.K);
  w.dk = TakeTile(shared, kC, a.K);
  w.dout = TakeTile(shared, kC, a.V);
  w.A = TakeTile(shared, kC, kC);
  w.dA = TakeTile(shared, kC, kC);
  FillState<float>(dS, a.K, a.V, StateAt(dstates, b, span, h, a.H, size));
  const float* start = span > 0 ? a.kept + ((b * (a.spans() - 1) + span - 1) * a.H + h) * size
                       : a.state != nullptr ? a.state + (b * a.H + h) * size
                                            : nullptr;
  for (int64_t n = ChunksOf(a, span) - 1; n >= 0; --n) {
    const int64_t t0 = span * kSpan + n * kC, row = b * a.T + t0;
    const int64_t count = a.T - t0 < kC ? a.T - t0 : kC;
    __syncthreads();
    FillState<float>(S, a.K, a.V, start);
    for (int64_t before = 0; before < n; ++before) {
      FillChunk(a, b, h, span * kSpan + before * kC, c);
      AdvanceState<T>(c, a.K, a.V, S);
    }
    FillChunk(a, b, h, t0, c);
    FillTile<kC>(w.dout, g.dout == nullptr ? 0 : count, a.V, [&](int t, int i) {
      return ToFloat(g.dout[(row + t) * g.dout_stride + h * a.V + i]);
    });
    PairScores(c, a.K, w.A);
    __syncthreads();
    float dA[1][4] = {};
    AddProduct<T, Strip>(
        Padded(a.V), [&](int t, int v) { return w.dout(t, v); },
        [&](int v, int s) { return s < kC ? c.v(s, v) : 0; }, dA);
    ForOwned<Strip>(dA, [&](int t, int s, float x) {
      if (s < kC) w.dA(t, s) = x;
    });
    for (int k0 = 0; k0 < a.K; k0 += 64) {
      float dq[1][4] = {}, dk[1][4] = {};
      AddProduct<T, Strip>(
          Padded(a.V), [&](int t, int v) { return w.dout(t, v); },
          [&](int v, int k) { return S(k0 + k, v); }, dq);
      AddProduct<T, Strip>(
          Padded(a.V), [&](int t, int v) { return c.v(t, v); },
          [&](int v, int k) { return dS(k0 + k, v); }, dk);
      ForOwned<Strip>(dq, [&](int t, int k, float x) { w.dq(t, k0 + k) = x; });
      ForOwned<Strip>(dk, [&](int t, int k, float x) { w.dk(t, k0 + k) = x; });
    }
    // dv = A^T do + (k o until) dS.
    for (int v0 = 0; g.dv != nullptr && v0 < a.V; v0 += 64) {
      float dv[1][4] = {};
      AddProduct<T, Strip>(
          Padded(a.K), [&](int t, int k) { return c.k(t, k) * c.until(t, k); },
          [&](int k, int v) { return dS(k, v0 + v); }, dv);
      AddProduct<T, Strip>(
          kC, [&](int t, int s) { return s >= t ? w.A(s, t) : 0; },
          [&](int s, int v) { return w.dout(s, v0 + v); }, dv);
      ForOwned<Strip>(dv, [&](int t, int v, float x) {
        if (t < count && v0 + v < a.V)
          PutGrad(g.dv + (row + t) * g.dv_stride + h * a.V + v0 + v, x, g.dv_mode);
      });
    }
    __syncthreads();
    const int k = static_cast<int>(threadIdx.x);
    if (k < a.K) {
      float passing = 0;
      for (int v = 0; v < a.V; ++v) passing += S(k, v) * dS(k, v);
      ChannelGrads(g, c, w, k, Whole(c, k) * passing, row, h, count);
    }
    __syncthreads();  // dS has been read
    Advance<T>(
        c, a.K, a.V, [&](int t, int i) { return c.q(t, i) * c.since(t, i); }, w.dout, dS);
  }
}

template <class T>
void GlaScanGrad(const GlaScanGradArgs<T>& g) {
  const GlaScanArgs<T>& a = g.forward;
  CheckSizes(a);
  if (a.B * a.T * a.H == 0) return;
  const int64_t heads = a.B * a.spans() * a.H;
  float* whole = ScratchFloats(g.CudaScratch());
  const StateArray dstates{whole + heads * a.K, a.spans(), nullptr};
  LaunchStates<Pass::kBackward, T>(a, g.dout, g.dout_stride, dstates, whole, g.dlast_state,
                                   g.dstate, g.dstate_mode);
  Launch(GlaGradKernel<T>,
         dim3{static_cast<unsigned>(a.spans()), static_cast<unsigned>(a.H),
              static_cast<unsigned>(a.B)},
         dim3{kScanThreads},
         ChunkBytes(a.K, a.V) + 2 * TileBytes(Padded(a.K), a.V) + 2 * TileBytes(kC, a.K) +
             TileBytes(kC, a.V) + 2 * TileBytes(kC, kC),
         g, dstates);
}

}  // namespace

TESSERA_DEVICE_KERNEL(GlaScanGrad)

}  // namespace tessera::TESSERA_DEVICE
