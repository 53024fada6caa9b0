#include "kernels/scan/gla_tile.cuh"

// Names as in kernels/scan/gla_scan_grad.cc: S the state at a chunk's start, dS the gradient of the
// one at its end.

namespace tessera::TESSERA_DEVICE {
namespace {

template <class Chunk_>
struct GlaGradTile : Chunk_ {
  using Chunk = Chunk_;
  using T = typename Chunk::Element;
  alignas(16) T dout[kC * Chunk::kPitchV];
  alignas(16) float dk[kC * Chunk::kPitchDecay];  // at first v dS^T
  alignas(16) float dpairs[kC][kC + 1];
  float passing[Chunk::kWide][Chunk::kK];
  // At first do S^T. In fp32 it takes the place of the gates, which are read by then.
  static constexpr bool kOwn = sizeof(T) != sizeof(float);
  alignas(16) float own_dq[kOwn ? kC * Chunk::kPitchDecay : 1];
  __device__ __forceinline__ float* dq() {
    if constexpr (kOwn)
      return own_dq;
    else
      return this->gate;
  }
};

// dq, dk and dg of one channel over a chunk, by one thread: each query t walks back, decaying, and
// meets what came forward from the keys. `passing` is what the state that passes the chunk by owes
// to each of its decays.
template <class Tile, class T>
__device__ __forceinline__ void ChannelGrads(const Gradient<GlaScanArgs<T>>& g, Tile& w, int k,
                                             float passing, int64_t row, int64_t h, int64_t count) {
  const GlaScanArgs<T>& a = g.forward;
  const auto key = [&](int s) { return ToFloat(w.k[s * Tile::kPitchK + k]); };
  const auto decay_of = [&](int s) { return w.decay[s * Tile::kPitchDecay + k]; };
  float dk[kC] = {}, dg[kC] = {}, x[kC], entering = 0;
  // From the last query to the first, so that what enters the chunk up to t is summed on the way.
#pragma unroll 1
  for (int t = static_cast<int>(count) - 1; t >= 0; --t) {
    const float q = a.scale * ToFloat(w.q[t * Tile::kPitchK + k]);
    float walk = q;
#pragma unroll
    for (int s = kC - 1; s >= 0; --s) {
      if (s > t) continue;
      x[s] = walk;
      walk *= decay_of(s);
    }
    float z = 0;
#pragma unroll
    for (int s = 0; s < kC; ++s) {
      if (s > t) continue;
      const float decayed = z * decay_of(s), dA = w.dpairs[t][s];
      dg[s] += x[s] * decayed;
      dk[s] += x[s] * dA;
      z = decayed + key(s) * dA;
    }
    float& dq = w.dq()[t * Tile::kPitchDecay + k];
    const float from_start = dq * w.since[t * Tile::kPitchDecay + k];
    entering += from_start * q;
    if (g.d.q.data != nullptr)
      PutGrad(g.d.q.data + (row + t) * g.d.q.stride + h * a.K + k, (from_start + z) * a.scale,
              g.d.q.mode);
    dq = entering;
  }
  float leaving = passing;
#pragma unroll
  for (int t = 0; t < kC; ++t) {
    if (t >= count) continue;
    const int at = t * Tile::kPitchDecay + k;
    const float from_end = w.dk[at] * w.until[at], decay = dg[t] + w.dq()[at] + leaving;
    leaving += from_end * key(t);
    if (g.d.k.data != nullptr)
      PutGrad(g.d.k.data + (row + t) * g.d.k.stride + h * a.K + k, from_end + dk[t], g.d.k.mode);
    if (g.d.g.data != nullptr)
      PutGrad(g.d.g.data + (row + t) * g.d.g.stride + h * a.K + k, decay, g.d.g.mode);
  }
}

// A fragment of 16 x 16 to a tile of floats.
__device__ __forceinline__ void StoreSquare(float (&f)[1][2][4], float* to, int pitch) {
  ForFragment(f, [&](int r, int j, float x) { to[FragmentRow(r) * pitch + j] = x; });
}

// Block (span, h, b): the gradients of a span, chunk after chunk from the last. The state at a
// chunk's start is made again from that at the span's.
template <class Tile, class T>
__global__ void __launch_bounds__(kGlaThreads)
    GlaGradKernel(Gradient<GlaScanArgs<T>> g, StateArray dstates, bool aligned) {
  using F = Fragments<T>;
  constexpr int kPitchV = Tile::kPitchV;
  TESSERA_DYNAMIC_SHARED(Tile, tile);
  typename Tile::Chunk& chunk = *tile;
  const GlaScanArgs<T>& a = g.forward;
  const GridPlace place = PlaceInGrid(a.spans(), a.H);
  const int64_t span = place.x, h = place.y, b = place.z;
  const int64_t size = a.K * a.V;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, column = 16 * warp;
  const float* const start = span > 0
                                 ? a.kept.data + ((b * (a.spans() - 1) + span - 1) * a.H + h) * size
                             : a.state.data != nullptr ? a.state.data + (b * a.H + h) * size
                                                       : nullptr;
  typename Tile::State S, dS;
  LoadState<Tile>(dS, a.K, a.V, StateAt(dstates, b, span, h, a.H, size));
  for (int64_t n = ChunksOf(a, span) - 1; n >= 0; --n) {
    const int64_t t0 = span * kSpan + n * kC, row = b * a.T + t0;
    LoadState<Tile>(S, a.K, a.V, start);
    for (int64_t before = 0; before < n; ++before) {
      FillChunk<Side::kKeys>(a, b, h, span * kSpan + before * kC, aligned, chunk);
      Advance(chunk, tile->k_until, tile->v, S);
    }
    const int64_t count = a.T - t0 < kC ? a.T - t0 : kC;
    FillChunk<Side::kBoth>(a, b, h, t0, aligned, chunk, [&](int64_t rows) {
      StartRows<Tile::kV>(
          tile->dout, g.d.o.data == nullptr ? nullptr : g.d.o.data + row * g.d.o.stride + h * a.V,
          g.d.o.stride, rows, a.V, aligned);
    });
    StoreState(S, chunk);
    PairScores(chunk, a.scale);
    float passing[2] = {};  // <S, dS> along a row
#pragma unroll
    for (int j = 0; j < Tile::kColumns / 8; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) passing[e / 2] += S[0][j][e] * dS[0][j][e];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float all = RowSum(passing[r]);
      if (thread % 4 == 0)
        tile->passing[Tile::Column() / Tile::kColumns][Tile::Row() + FragmentRow(r)] = all;
    }
    __syncthreads();
    if (warp == kGlaWarps - 1) {
      float dA[1][2][4] = {};
      F::template Dots<kC, Tile::kV>(tile->dout, tile->v, dA);
      StoreSquare(dA, tile->dpairs[0], kC + 1);
    }
    if (column < Tile::kK) {
      float dq[1][2][4] = {};
      F::template Dots<kC, Tile::kV>(tile->dout, tile->state + column * kPitchV, dq);
      StoreSquare(dq, tile->dq() + column, Tile::kPitchDecay);
    }
    __syncthreads();  // S has been read
    StoreState(dS, chunk);
    __syncthreads();
    if (column < Tile::kK) {
      float dk[1][2][4] = {};
      F::template Dots<kC, Tile::kV>(tile->v, tile->state + column * kPitchV, dk);
      StoreSquare(dk, tile->dk + column, Tile::kPitchDecay);
    }
    // dv = A^T do + (k o until) dS.
    if (g.d.v.data != nullptr && column < Tile::kV) {
      float dv[1][2][4] = {};
      F::template StoredRows<Tile::kK, 16, kPitchV>(tile->k_until, tile->state + column, dv);
      F::template Columns<kC, 16, Tile::kPitchA, kPitchV>(tile->pairs, tile->dout + column,
                                                          Unscaled{}, dv);
      PutPairs<T>(dv, a.V - column, aligned, g.d.v.mode, [&](int r) -> T* {
        const int t = FragmentRow(r);
        return t < count ? g.d.v.data + (row + t) * g.d.v.stride + h * a.V + column : nullptr;
      });
    }
    __syncthreads();
    if (thread < a.K) {
      float all = 0;
      for (int i = 0; i < Tile::kWide; ++i) all += tile->passing[i][thread];
      ChannelGrads(g, *tile, thread, tile->Whole(thread) * all, row, h, count);
    }
    Advance(chunk, tile->q_since, tile->dout, dS);
  }
}

template <class T>
void GlaScanGrad(const Gradient<GlaScanArgs<T>>& g) {
  const GlaScanArgs<T>& a = g.forward;
  if (a.B * a.T * a.H == 0) return;
  const int64_t heads = a.B * a.spans() * a.H;
  const Scratch scratch(g.CudaScratch());
  float* const states = scratch.floats();
  float* const whole = states + heads * a.K * a.V;
  const StateArray dstates = Dense(states, a.spans(), nullptr);
  const bool aligned =
      AlignedRows(a) && Aligned(g.d.o.data, g.d.o.stride) && Aligned(g.d.v.data, g.d.v.stride);
  ByHeadSize(a, [&](auto type) {
    using Tile = GlaGradTile<typename decltype(type)::type>;
    static_assert(sizeof(Tile) <= kSharedBytes);
    LaunchStates<Pass::kBackward, typename Tile::Chunk, T>(a, g.d.o.data, g.d.o.stride, aligned,
                                                           dstates, whole, g.d.last_state.data,
                                                           g.d.state.data, g.d.state.mode);
    Launch(GlaGradKernel<Tile, T>, FoldedGrid(a.spans(), a.H, a.B), dim3{kGlaThreads}, sizeof(Tile),
           g, dstates, aligned);
  });
}

}  // namespace

TESSERA_DEVICE_KERNEL_OF(Gradient<GlaScanArgs<float>>, GlaScanGrad)
TESSERA_DEVICE_KERNEL_OF(Gradient<GlaScanArgs<bf16>>, GlaScanGrad)

}  // namespace tessera::TESSERA_DEVICE
