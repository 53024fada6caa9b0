#ifndef TESSERA_KERNELS_SCAN_GLA_TILE_CUH_
#define TESSERA_KERNELS_SCAN_GLA_TILE_CUH_

#include "core/check.h"
#include "kernels/cuda/fragment.h"
#include "kernels/scan/gla_scan.h"
#include "kernels/scan/state_pass.cuh"

// What both directions of the gated linear attention scan share. A block takes a span of four
// chunks of 16 tokens, with the state in registers: first what each span adds to the state, all at
// once, then one pass from span to span over the states alone, then the outputs or gradients of all
// spans. Within a chunk, decays are multiplied on, pair by pair, as in kernels/scan/gla_scan.h.

namespace tessera::TESSERA_DEVICE {
namespace {

constexpr int kC = 16, kSpanChunks = 4, kSpan = kC * kSpanChunks;
static_assert(kC == GlaScanArgs<float>::kChunk &&
              kSpanChunks == GlaScanArgs<float>::kChunksPerKept);
constexpr int kMaxGlaWidth = GlaScanArgs<float>::kCudaWidth;
constexpr int kGlaThreads = 256, kGlaWarps = kGlaThreads / 32;

// One chunk of one head in shared memory, for heads of up to kK x kV; rows past the end of the
// sequence are zeros that do not decay, columns past the head's zeros.
template <class T, int kK_, int kV_>
struct GlaTile {
  using Element = T;
  static constexpr int kK = kK_, kV = kV_;
  static constexpr int kPitchK = Fragments<T>::Pitch(kK), kPitchV = Fragments<T>::Pitch(kV);
  static constexpr int kPitchA = Fragments<T>::Pitch(kC), kPitchDecay = kK + 4;
  // A warp has 16 rows of the state and kColumns of its columns.
  static constexpr int kTall = kK / 16, kWide = kGlaWarps / kTall, kColumns = kV / kWide;
  using State = float[1][kColumns / 8][4];

  alignas(16) T q[kC * kPitchK], k[kC * kPitchK], v[kC * kPitchV];  // as they are in memory
  alignas(16) T gate[kC * kPitchK];
  alignas(16) T q_since[kC * kPitchK];  // q decayed since the chunk's start, scaled
  alignas(16) T k_until[kC * kPitchK];  // k decayed until its end
  // Decays of a token, and their products from the chunk's start, and to its end.
  alignas(16) float decay[kC * kPitchDecay], since[kC * kPitchDecay], until[kC * kPitchDecay];
  alignas(16) T pairs[kC * kPitchA];  // PairScores
  alignas(16) T state[kK * kPitchV];

  static __device__ __forceinline__ int Row() { return threadIdx.x / 32 % kTall * 16; }
  static __device__ __forceinline__ int Column() { return threadIdx.x / 32 / kTall * kColumns; }
  // The product of all decays of channel k.
  __device__ __forceinline__ float Whole(int k) const { return since[(kC - 1) * kPitchDecay + k]; }
};

// use(GlaTile): the smallest that holds the head.
template <class T, class Use>
void ByHeadSize(const GlaScanArgs<T>& a, Use&& use) {
  TESSERA_CHECK(a.CudaLimit().empty(), "%s", a.CudaLimit().c_str());
  const auto by_v = [&](auto k) {
    if (a.V <= 64) return use(std::type_identity<GlaTile<T, k.value, 64>>{});
    use(std::type_identity<GlaTile<T, k.value, 128>>{});
  };
  a.K <= 64 ? by_v(std::integral_constant<int, 64>{}) : by_v(std::integral_constant<int, 128>{});
}

// Whether rows of all heads can be copied 16 bytes at a time.
template <class T>
bool AlignedRows(const GlaScanArgs<T>& a) {
  return a.K % kVector<T> == 0 && a.V % kVector<T> == 0 && Aligned(a.q.data, a.q.stride) &&
         Aligned(a.k.data, a.k.stride) && Aligned(a.v.data, a.v.stride) &&
         Aligned(a.g.data, a.g.stride);
}

// Begins to copy a chunk's `width` columns from rows `stride` apart; rows that are not there are 0.
template <int kColumns, class T>
__device__ __forceinline__ void StartRows(T* tile, const T* from, int64_t stride, int64_t count,
                                          int64_t width, bool aligned) {
  StartTile<kGlaThreads, kC, kColumns>(
      tile, static_cast<int>(width), aligned, [&](int t) -> const T* {
        return from != nullptr && t < count ? from + t * stride : nullptr;
      });
}

enum class Side { kKeys = 1, kQueries = 2, kBoth = 3 };

// Fills a chunk: k, v and what is made of k, or q and what is made of it, or both. `start_more`
// begins further copies. Barriers before, so that all are done with the chunk there, and after.
template <Side kSide, class Tile, class T, class StartMore>
__device__ __forceinline__ void FillChunk(const GlaScanArgs<T>& a, int64_t b, int64_t h, int64_t t0,
                                          bool aligned, Tile& c, StartMore start_more) {
  constexpr bool kKeys = (static_cast<int>(kSide) & 1) != 0;
  constexpr bool kQueries = (static_cast<int>(kSide) & 2) != 0;
  const int64_t row = b * a.T + t0, count = a.T - t0 < kC ? a.T - t0 : kC;
  __syncthreads();
  StartRows<Tile::kK>(c.gate, a.g.data + row * a.g.stride + h * a.K, a.g.stride, count, a.K,
                      aligned);
  if (kKeys) {
    StartRows<Tile::kK>(c.k, a.k.data + row * a.k.stride + h * a.K, a.k.stride, count, a.K,
                        aligned);
    StartRows<Tile::kV>(c.v, a.v.data + row * a.v.stride + h * a.V, a.v.stride, count, a.V,
                        aligned);
  }
  if (kQueries)
    StartRows<Tile::kK>(c.q, a.q.data + row * a.q.stride + h * a.K, a.q.stride, count, a.K,
                        aligned);
  start_more(count);
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
  // Two threads a channel: one from the start of the chunk, one from its end.
  const int i = static_cast<int>(threadIdx.x) % Tile::kK;
  const int way = static_cast<int>(threadIdx.x) / Tile::kK;
  const auto decay = [&](int t) -> float {
    if (t >= count) return 1;
    const bool starts =
        a.start.data != nullptr && a.start.data[row + t] == static_cast<int>(t0) + t;
    return starts ? 0 : expf(ToFloat(c.gate[t * Tile::kPitchK + i]));
  };
  float p = 1;
  if (way == 0) {
#pragma unroll
    for (int t = 0; t < kC; ++t) {
      const float d = decay(t);
      p *= d;
      c.decay[t * Tile::kPitchDecay + i] = d;
      c.since[t * Tile::kPitchDecay + i] = p;
      if (kQueries)
        c.q_since[t * Tile::kPitchK + i] =
            FromFloat<T>(a.scale * p * ToFloat(c.q[t * Tile::kPitchK + i]));
    }
  } else if (way == 1 && kKeys) {
#pragma unroll
    for (int t = kC - 1; t >= 0; --t) {
      c.until[t * Tile::kPitchDecay + i] = p;
      c.k_until[t * Tile::kPitchK + i] = FromFloat<T>(p * ToFloat(c.k[t * Tile::kPitchK + i]));
      p *= decay(t);
    }
  }
  __syncthreads();
}
template <Side kSide, class Tile, class T>
__device__ __forceinline__ void FillChunk(const GlaScanArgs<T>& a, int64_t b, int64_t h, int64_t t0,
                                          bool aligned, Tile& c) {
  FillChunk<kSide>(a, b, h, t0, aligned, c, [](int64_t) {});
}

// pairs(t, s) = scale sum_k q_tk k_sk prod_{s<r<=t} decay_rk for s <= t, 0 above: thread (t, j)
// lets q_t walk back through the chunk, decaying, two channels at a time; the sums of the 16
// threads of t meet in shuffles. Barrier before they are read.
template <class Tile>
__device__ __forceinline__ void PairScores(Tile& c, float scale) {
  const int t = threadIdx.x / 16, lane = threadIdx.x % 16;
  float sum[kC] = {};
  for (int k = 2 * lane; k < Tile::kK; k += 32) {
    float x[2], key[2], decay[2];
    Load(c.q + t * Tile::kPitchK + k, x);
#pragma unroll
    for (int s = kC - 1; s >= 0; --s) {
      if (s > t) continue;
      Load(c.k + s * Tile::kPitchK + k, key);
      Load(c.decay + s * Tile::kPitchDecay + k, decay);
      sum[s] += x[0] * key[0] + x[1] * key[1];
      x[0] *= decay[0];
      x[1] *= decay[1];
    }
  }
#pragma unroll
  for (int s = 0; s < kC; ++s) {
    float all = sum[s];
#pragma unroll
    for (int x = 8; x > 0; x /= 2) all += __shfl_xor_sync(kAllLanes, all, x);
    if (lane == s)
      c.pairs[t * Tile::kPitchA + s] = FromFloat<typename Tile::Element>(s <= t ? scale * all : 0);
  }
}

// The state after a chunk: s = whole o s + x^T y, x [16, K] and y [16, V] over its tokens.
template <class Tile>
__device__ __forceinline__ void Advance(const Tile& c, const typename Tile::Element* x,
                                        const typename Tile::Element* y, typename Tile::State& s) {
  const float whole[2] = {c.Whole(Tile::Row() + FragmentRow(0)),
                          c.Whole(Tile::Row() + FragmentRow(1))};
  ForFragment(s, [&](int r, int, float& e) { e *= whole[r]; });
  Fragments<typename Tile::Element>::template Columns<kC, Tile::kColumns, Tile::kPitchK,
                                                      Tile::kPitchV>(
      x + Tile::Row(), y + Tile::Column(), Unscaled{}, s);
}

// A warp's part of a state [K, V] from memory or to it; null is zero.
template <class Tile>
__device__ __forceinline__ void LoadState(typename Tile::State& s, int64_t K, int64_t V,
                                          const float* from) {
  LoadFragment(s, static_cast<int>(K) - Tile::Row(), static_cast<int>(V) - Tile::Column(), V,
               from == nullptr ? nullptr : from + Tile::Row() * V + Tile::Column());
}
template <class Tile>
__device__ __forceinline__ void SaveState(const typename Tile::State& s, int64_t K, int64_t V,
                                          float* to) {
  SaveFragment(s, static_cast<int>(K) - Tile::Row(), static_cast<int>(V) - Tile::Column(), V,
               to + Tile::Row() * V + Tile::Column());
}
// To the tile that products read it from.
template <class Tile>
__device__ __forceinline__ void StoreState(const typename Tile::State& s, Tile& c) {
  StoreFragment<Tile::kPitchV>(s, c.state + Tile::Row() * Tile::kPitchV + Tile::Column());
}

template <class T>
__device__ __forceinline__ int64_t ChunksOf(const GlaScanArgs<T>& a, int64_t span) {
  const int64_t left = (a.T - span * kSpan + kC - 1) / kC;
  return left < kSpanChunks ? left : kSpanChunks;
}

// Block (span, h, b): what the span adds to the state at its end, or, backward, what its outputs
// add to the gradient of the state at its start; and the span's whole decay [K].
template <Pass kPass, class Tile, class T>
__global__ void __launch_bounds__(kGlaThreads)
    GlaSpanState(GlaScanArgs<T> a, const T* dout, int64_t dout_stride, StateArray states,
                 float* whole, bool aligned) {
  TESSERA_DYNAMIC_SHARED(Tile, tile);
  const GridPlace place = PlaceInGrid(a.spans(), a.H);
  const int64_t span = place.x, h = place.y, b = place.z;
  float* const out = StateAt(states, b, span, h, a.H, a.K * a.V);
  const int64_t chunks = ChunksOf(a, span);
  const int channel = static_cast<int>(threadIdx.x);
  typename Tile::State s = {};
  float product = 1;
  for (int64_t n = 0; n < chunks; ++n) {
    if (kPass == Pass::kForward) {
      FillChunk<Side::kKeys>(a, b, h, span * kSpan + n * kC, aligned, *tile);
      Advance(*tile, tile->k_until, tile->v, s);
    } else {
      const int64_t t0 = span * kSpan + (chunks - 1 - n) * kC;
      FillChunk<Side::kQueries>(a, b, h, t0, aligned, *tile, [&](int64_t count) {
        StartRows<Tile::kV>(
            tile->v, dout == nullptr ? nullptr : dout + (b * a.T + t0) * dout_stride + h * a.V,
            dout_stride, count, a.V, aligned);
      });
      Advance(*tile, tile->q_since, tile->v, s);
    }
    if (channel < a.K) product *= tile->Whole(channel);
  }
  if (channel < a.K) whole[((b * a.spans() + span) * a.H + h) * a.K + channel] = product;
  if (out != nullptr) SaveState<Tile>(s, a.K, a.V, out);
}

// The two launches that leave the states in `states`.
template <Pass kPass, class Tile, class T>
void LaunchStates(const GlaScanArgs<T>& a, const T* dout, int64_t dout_stride, bool aligned,
                  const StateArray& states, float* whole, const float* from, float* to, Grad mode) {
  Launch(GlaSpanState<kPass, Tile, T>, FoldedGrid(a.spans(), a.H, a.B), dim3{kGlaThreads},
         sizeof(Tile), a, dout, dout_stride, states, whole, aligned);
  PassStates(kPass, states, whole, a.B, a.spans(), a.H, a.K, a.K * a.V, from, to, mode);
}

}  // namespace
}  // namespace tessera::TESSERA_DEVICE

#endif  // TESSERA_KERNELS_SCAN_GLA_TILE_CUH_
