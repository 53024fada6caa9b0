#ifndef TESSERA_KERNELS_CUDA_GLA_TILE_H_
#define TESSERA_KERNELS_CUDA_GLA_TILE_H_

#include "core/check.h"
#include "kernels/cuda/state_pass.h"
#include "kernels/gla_scan.h"

// What both directions of the gated linear attention scan share. A block takes a span of four
// chunks of 16 tokens: first what each span adds to the state, all at once, then one pass from span
// to span over the states alone, then the outputs or gradients of all spans. Within a chunk, decays
// are multiplied on, pair by pair, as in kernels/gla_scan.h.

namespace tessera::TESSERA_DEVICE {
namespace {

constexpr int kC = 16, kSpanChunks = 4, kSpan = kC * kSpanChunks;
static_assert(kC == GlaScanArgs<float>::kChunk &&
              kSpanChunks == GlaScanArgs<float>::kChunksPerKept);
constexpr int kMaxGlaWidth = GlaScanArgs<float>::kCudaWidth;

// One chunk of one head in shared memory; rows past the end of the sequence are zeros that do not
// decay. `since` and `until` are products of decays as in kernels/gla_scan.cc.
struct GlaChunk {
  Tile q, k, decay, since, until;  // [16, K]; q scaled
  Tile v;                          // [16, V]
};
__device__ __forceinline__ GlaChunk TakeChunk(float*& shared, int64_t K, int64_t V) {
  GlaChunk c;
  c.q = TakeTile(shared, kC, K);
  c.k = TakeTile(shared, kC, K);
  c.decay = TakeTile(shared, kC, K);
  c.since = TakeTile(shared, kC, K);
  c.until = TakeTile(shared, kC, K);
  c.v = TakeTile(shared, kC, V);
  return c;
}
inline size_t ChunkBytes(int64_t K, int64_t V) { return 5 * TileBytes(kC, K) + TileBytes(kC, V); }

// Fills a chunk; barriers before, so that all are done with the one there, and after.
template <class T>
__device__ __forceinline__ void FillChunk(const GlaScanArgs<T>& a, int64_t b, int64_t h, int64_t t0,
                                          const GlaChunk& c) {
  const int64_t row = b * a.T + t0, count = a.T - t0 < kC ? a.T - t0 : kC;
  __syncthreads();
  FillTile<kC>(c.q, count, a.K, [&](int t, int i) {
    return a.scale * ToFloat(a.q[(row + t) * a.q_stride + h * a.K + i]);
  });
  FillTile<kC>(c.k, count, a.K,
               [&](int t, int i) { return ToFloat(a.k[(row + t) * a.k_stride + h * a.K + i]); });
  FillTile<kC>(c.v, count, a.V,
               [&](int t, int i) { return ToFloat(a.v[(row + t) * a.v_stride + h * a.V + i]); });
  // A thread a channel.
  for (int i = static_cast<int>(threadIdx.x); i < Padded(a.K); i += kScanThreads) {
    float p = 1;
#pragma unroll
    for (int t = 0; t < kC; ++t) {
      float d = 1;
      if (t < count && i < a.K) {
        const bool starts = a.position != nullptr && a.position[row + t] == 0;
        d = starts ? 0 : expf(ToFloat(a.g[(row + t) * a.g_stride + h * a.K + i]));
      }
      c.decay(t, i) = d;
      c.since(t, i) = p *= d;
    }
    p = 1;
#pragma unroll
    for (int t = kC - 1; t >= 0; --t) {
      c.until(t, i) = p;
      p *= c.decay(t, i);
    }
  }
  __syncthreads();
}
// The product of all decays of channel k.
__device__ __forceinline__ float Whole(const GlaChunk& c, int k) { return c.since(kC - 1, k); }

// A_ts = sum_k q_tk k_sk prod_{s<r<=t} decay_rk for s <= t, 0 above: thread (t, j) lets q_t walk
// back through the chunk, decaying, for channels j, j + 16, ...; the sums of the 16 threads of t
// meet in shuffles. Barrier before A is read.
__device__ __forceinline__ void PairScores(const GlaChunk& c, int64_t K, const Tile& A) {
  const int t = threadIdx.x / 16, lane = threadIdx.x % 16;
  float sum[kC] = {};
  for (int k = lane; k < K; k += 16) {
    float x = c.q(t, k);
#pragma unroll
    for (int s = kC - 1; s >= 0; --s) {
      if (s > t) continue;
      sum[s] += x * c.k(s, k);
      x *= c.decay(s, k);
    }
  }
#pragma unroll
  for (int s = 0; s < kC; ++s) {
    float all = sum[s];
#pragma unroll
    for (int x = 8; x > 0; x /= 2) all += __shfl_xor_sync(kAllLanes, all, x);
    if (lane == s) A(t, s) = all;
  }
}

// S = whole o S + x^T y over the chunk's tokens, for x(t, k) and a tile y [16, V]. A thread keeps
// to its own elements of S, so no barrier is needed between two of these.
template <class T, class X>
__device__ __forceinline__ void Advance(const GlaChunk& c, int64_t K, int64_t V, X x, const Tile& y,
                                        const Tile& S) {
  for (int k0 = 0; k0 < K; k0 += 64)
    for (int v0 = 0; v0 < V; v0 += 64) {
      float sum[4][4];
      ForOwned<Square>(sum,
                       [&](int k, int v, float& s) { s = Whole(c, k0 + k) * S(k0 + k, v0 + v); });
      AddProduct<T, Square>(
          kC, [&](int k, int t) { return x(t, k0 + k); },
          [&](int t, int v) { return y(t, v0 + v); }, sum);
      ForOwned<Square>(sum, [&](int k, int v, float s) { S(k0 + k, v0 + v) = s; });
    }
}
template <class T>
__device__ __forceinline__ void AdvanceState(const GlaChunk& c, int64_t K, int64_t V,
                                             const Tile& S) {
  Advance<T>(
      c, K, V, [&](int t, int k) { return c.k(t, k) * c.until(t, k); }, c.v, S);
}

template <class T>
__device__ __forceinline__ int64_t ChunksOf(const GlaScanArgs<T>& a, int64_t span) {
  const int64_t left = (a.T - span * kSpan + kC - 1) / kC;
  return left < kSpanChunks ? left : kSpanChunks;
}

// Block (span, h, b): what the span adds to the state at its end, or, backward, what its outputs
// add to the gradient of the state at its start; and the span's whole decay [K].
template <Pass kPass, class T>
__global__ void __launch_bounds__(kScanThreads)
    GlaSpanState(GlaScanArgs<T> a, const T* dout, int64_t dout_stride, StateArray states,
                 float* whole) {
  TESSERA_DYNAMIC_SHARED(float, shared);
  const int64_t span = blockIdx.x, h = blockIdx.y, b = blockIdx.z;
  const GlaChunk c = TakeChunk(shared, a.K, a.V);
  const Tile S = TakeTile(shared, Padded(a.K), a.V), dy = TakeTile(shared, kC, a.V);
  float* out = StateAt(states, b, span, h, a.H, a.K * a.V);
  const int64_t chunks = ChunksOf(a, span);
  FillState<float>(S, a.K, a.V, nullptr);
  float product = 1;  // of channel threadIdx.x
  for (int64_t n = 0; n < chunks; ++n) {
    const int64_t t0 = span * kSpan + (kPass == Pass::kForward ? n : chunks - 1 - n) * kC;
    FillChunk(a, b, h, t0, c);
    if (static_cast<int64_t>(threadIdx.x) < a.K) product *= Whole(c, static_cast<int>(threadIdx.x));
    if (kPass == Pass::kForward) {
      AdvanceState<T>(c, a.K, a.V, S);
      continue;
    }
    const int64_t count = dout == nullptr ? 0 : a.T - t0;
    FillTile<kC>(dy, count, a.V, [&](int t, int i) {
      return ToFloat(dout[(b * a.T + t0 + t) * dout_stride + h * a.V + i]);
    });
    __syncthreads();
    Advance<T>(
        c, a.K, a.V, [&](int t, int k) { return c.q(t, k) * c.since(t, k); }, dy, S);
  }
  __syncthreads();
  if (static_cast<int64_t>(threadIdx.x) < a.K)
    whole[((b * gridDim.x + span) * a.H + h) * a.K + threadIdx.x] = product;
  for (int64_t i = threadIdx.x; out != nullptr && i < a.K * a.V; i += kScanThreads)
    out[i] = S(i / a.V, i % a.V);
}

template <class T>
void CheckSizes(const GlaScanArgs<T>& a) {
  TESSERA_CHECK(a.CudaLimit().empty(), "%s", a.CudaLimit().c_str());
}

// The two launches that leave the states in `states`.
template <Pass kPass, class T>
void LaunchStates(const GlaScanArgs<T>& a, const T* dout, int64_t dout_stride,
                  const StateArray& states, float* whole, const float* from, float* to, Grad mode) {
  Launch(GlaSpanState<kPass, T>,
         dim3{static_cast<unsigned>(a.spans()), static_cast<unsigned>(a.H),
              static_cast<unsigned>(a.B)},
         dim3{kScanThreads},
         ChunkBytes(a.K, a.V) + TileBytes(Padded(a.K), a.V) + TileBytes(kC, a.V), a, dout,
         dout_stride, states, whole);
  PassStates(kPass, states, whole, a.B, a.spans(), a.H, a.K, a.K * a.V, from, to, mode);
}

}  // namespace
}  // namespace tessera::TESSERA_DEVICE

#endif  // TESSERA_KERNELS_CUDA_GLA_TILE_H_
