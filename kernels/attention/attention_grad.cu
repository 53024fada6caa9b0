#include "kernels/attention/attention_tile.cuh"

// The tiles are computed again from lse (Dao 2023, algorithm 2), once by blocks that own queries,
// for dq, and once by blocks that own keys, for dk and dv: seven products in place of five, but no
// atomic addition, so that the result has the same bits each time.
//   p_ij = exp(s_ij - lse_i),  ds_ij = slope(s_ij) p_ij (do_i . v_j - delta_i),  delta_i = do_i .
//   o_i

namespace tessera::TESSERA_DEVICE {
namespace {

constexpr int kGradThreads = 256, kGradWarps = kGradThreads / 32;

// A block owns kOwn rows (queries, or keys) and goes through tiles of kInner of the others. Its
// warps stand in kTall rows of kWide: for the scores a warp has 16 kM of the block's rows and its
// share of the tile's, which then meet in shared memory; for the gradients the same rows and its
// share of the channels. So no warp needs more registers than it has, for heads of 256 channels
// either.
template <class T, int kD_>
struct GradTile {
  static constexpr int kD = kD_;
  static constexpr bool kHalf = sizeof(T) == 2;
  static constexpr int kM = kHalf && kD <= 128 ? 2 : 1;
  static constexpr int kOwn = kD <= 128 ? 64 * kM : kHalf ? 64 : 32;
  static constexpr int kInner = kD > 64 ? 32 : 64;
  // Where shared memory allows, a tile is copied while the one before it is multiplied.
  static constexpr int kStages = kD > 128 && !kHalf ? 1 : 2;
  static constexpr int kTall = kOwn / (16 * kM), kWide = kGradWarps / kTall;
  static constexpr int kShare = kInner / kWide, kChannels = kD / kWide;
  static constexpr int kPitch = Fragments<T>::Pitch(kD), kPairPitch = Fragments<T>::Pitch(kInner);
  static_assert(kShare % (kHalf ? 16 : 8) == 0 && kChannels % 16 == 0);

  alignas(16) T own_first[kOwn * kPitch], own_second[kOwn * kPitch];
  alignas(16) T first[kStages][kInner * kPitch], second[kStages][kInner * kPitch];
  alignas(16) T p[kOwn * kPairPitch], ds[kOwn * kPairPitch];

  // Of this thread's warp.
  static __device__ __forceinline__ int Row() { return threadIdx.x / 32 % kTall * 16 * kM; }
  static __device__ __forceinline__ int Wide() { return threadIdx.x / 32 / kTall; }
};

// delta[b, h, t] = <do, o>: a warp a query, a lane N channels at a time.
template <int N, class T>
__global__ void __launch_bounds__(256) DeltaKernel(Gradient<AttentionArgs<T>> g, float* delta) {
  const AttentionArgs<T>& a = g.forward;
  const int64_t i = int64_t{blockIdx.x} * 8 + threadIdx.x / 32;
  if (i >= a.B * a.H * a.T) return;
  const int64_t t = i % a.T, h = i / a.T % a.H, row = i / a.T / a.H * a.T + t;
  float sum = 0;
  for (int64_t v = N * (threadIdx.x % 32); v < a.V; v += N * 32) {
    float o[N], dout[N];
    Load(a.o.Row(row) + h * a.V + v, o);
    Load(g.d.o.Row(row) + h * a.V + v, dout);
#pragma unroll
    for (int i = 0; i < N; ++i) sum += o[i] * dout[i];
  }
  sum = WarpSum(sum);
  if (threadIdx.x % 32 == 0) delta[i] = sum;
}

// each(r, column, element of f, element of g), r as FragmentRow takes it.
template <int kM, int kN, class Each>
__device__ __forceinline__ void ForPairs(float (&f)[kM][kN][4], float (&g)[kM][kN][4], Each each) {
  const int t = threadIdx.x % 4 * 2;
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int n = 0; n < kN; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) each(2 * m + i / 2, 8 * n + t + i % 2, f[m][n][i], g[m][n][i]);
}

template <class T>
__device__ __forceinline__ bool Aligned16(const View<T>& v) {
  return reinterpret_cast<uintptr_t>(v.data) % 16 == 0 && v.stride * int64_t{sizeof(T)} % 16 == 0;
}

template <class T>
__device__ __forceinline__ const T* QueryRow(const AttentionArgs<T>& a, const View<T>& v,
                                             int64_t width, int64_t b, int64_t h, int64_t t) {
  return t < a.T ? v.Row(b * a.T + t) + h * width : nullptr;
}

// Block (i, h, b) owns the i-th kOwn queries of head h and goes through the keys they see.
// Barriers: a tile is whole before it is read, so are the scores, and all is read before the next
// one comes.
template <class T, int kD>
__global__ void __launch_bounds__(kGradThreads)
    QueryGradKernel(Gradient<AttentionArgs<T>> g, const float* delta, bool aligned) {
  using F = Fragments<T>;
  using Tile = GradTile<T, kD>;
  constexpr int kM = Tile::kM, kInner = Tile::kInner, kPitch = Tile::kPitch;
  constexpr int kThreads = kGradThreads;
  TESSERA_DYNAMIC_SHARED(Tile, shared);
  const AttentionArgs<T>& a = g.forward;
  const int64_t tiles = (a.T + Tile::kOwn - 1) / Tile::kOwn;
  const GridPlace place = PlaceInGrid(tiles, a.H);
  const int64_t tile = place.x, h = place.y, b = place.z;
  const int64_t q0 = (tiles - 1 - tile) * Tile::kOwn, hkv = h / (a.H / a.Hkv);
  const int K = static_cast<int>(a.K), V = static_cast<int>(a.V);
  const int64_t last = q0 + Tile::kOwn < a.T ? q0 + Tile::kOwn - 1 : a.T - 1;
  const int keys = HighOf(a, b, last) + 1;
  StartTile<kThreads, Tile::kOwn, kD>(shared->own_first, K, aligned,
                                      [&](int i) { return QueryRow(a, a.q, a.K, b, h, q0 + i); });
  StartTile<kThreads, Tile::kOwn, kD>(shared->own_second, V, aligned,
                                      [&](int i) { return QueryRow(a, g.d.o, a.V, b, h, q0 + i); });
  const int row0 = Tile::Row(), column0 = Tile::Wide() * Tile::kShare;
  const int channel = Tile::Wide() * Tile::kChannels;
  Sight sight[2 * kM], seen_by_all{0, -1};
  if (q0 + row0 + 16 * kM <= a.T)
    seen_by_all = {SightOf(a, b, q0 + row0 + 16 * kM - 1).low, HighOf(a, b, q0 + row0)};
  float lse[2 * kM] = {}, along[2 * kM] = {};
#pragma unroll
  for (int r = 0; r < 2 * kM; ++r) {
    const int64_t t = q0 + row0 + FragmentRow(r);
    sight[r] = t < a.T ? SightOf(a, b, t) : Sight{0, -1};
    if (t >= a.T) continue;
    lse[r] = kLog2E * a.lse.data[(b * a.H + h) * a.T + t];
    along[r] = delta[(b * a.H + h) * a.T + t];
  }
  const auto start = [&](int j0, int stage) {
    StartTile<kThreads, kInner, kD>(shared->first[stage], K, aligned, [&](int i) -> const T* {
      if (j0 + i >= keys) return nullptr;
      return KeyRow(a, a.k, a.past_k, b, j0 + i) + hkv * a.K;
    });
    StartTile<kThreads, kInner, kD>(shared->second[stage], V, aligned, [&](int i) -> const T* {
      if (j0 + i >= keys) return nullptr;
      return KeyRow(a, a.v, a.past_v, b, j0 + i) + hkv * a.V;
    });
    cp_async_commit();
  };
  float dq[kM][Tile::kChannels / 8][4] = {};
  int stage = 0, j0 = SightOf(a, b, q0).low / kInner * kInner;
  start(j0, stage);
  for (; j0 < keys; j0 += kInner) {
    cp_async_wait<0>();
    __syncthreads();
    if (Tile::kStages == 2 && j0 + kInner < keys) start(j0 + kInner, 1 - stage);
    float s[kM][Tile::kShare / 8][4] = {}, dp[kM][Tile::kShare / 8][4] = {};
    F::template Dots<Tile::kShare, kD>(shared->own_first + row0 * kPitch,
                                       shared->first[stage] + column0 * kPitch, s);
    F::template Dots<Tile::kShare, kD>(shared->own_second + row0 * kPitch,
                                       shared->second[stage] + column0 * kPitch, dp);
    // Which way a tile goes is asked once, not for each element.
    const auto grads = [&](auto capped, auto masked) {
      ForPairs(s, dp, [&](int r, int j, float& x, float& d) {
        const float logit = capped.value ? CappedLogit(a, x) : x * (a.scale * kLog2E);
        const float slope = capped.value ? CappedSlope(a, logit) : a.scale;
        const int key = j0 + column0 + j;
        const bool seen = !masked.value || (key >= sight[r].low && key <= sight[r].high);
        d = seen ? slope * Exp2(logit - lse[r]) * (d - along[r]) : 0;
      });
    };
    if (a.soft_cap > 0)
      grads(std::true_type{}, std::true_type{});
    else if (j0 < seen_by_all.low || j0 + kInner - 1 > seen_by_all.high)
      grads(std::false_type{}, std::true_type{});
    else
      grads(std::false_type{}, std::false_type{});
    StoreFragment<Tile::kPairPitch>(dp, shared->ds + row0 * Tile::kPairPitch + column0);
    __syncthreads();
    F::template StoredRows<kInner, Tile::kChannels, kPitch>(shared->ds + row0 * Tile::kPairPitch,
                                                            shared->first[stage] + channel, dq);
    if (Tile::kStages == 2) {
      stage = 1 - stage;
    } else if (j0 + kInner < keys) {
      __syncthreads();
      start(j0 + kInner, stage);
    }
  }
  __syncthreads();
  PutFragment<kPitch>(dq, shared->own_first + row0 * kPitch + channel, a.K - channel,
                      aligned && Aligned16(g.d.q), g.d.q.mode, [&](int i) -> T* {
                        const int64_t t = q0 + row0 + i;
                        if (t >= a.T) return nullptr;
                        return g.d.q.Row(b * a.T + t) + h * a.K + channel;
                      });
}

// How many of the first n, of which all that are so stand before all that are not.
template <class Is>
__device__ __forceinline__ int64_t Halving(int64_t n, Is is) {
  int64_t count = 0;
  while (n > 0) {
    const int64_t half = n / 2;
    if (is(count + half)) {
      count += half + 1;
      n -= half + 1;
    } else {
      n = half;
    }
  }
  return count;
}

// What the keys need to know of a query.
struct QueryFacts {
  Sight sight;
  float lse, delta;
};

// Block (i, hkv, b) owns the i-th kOwn keys and goes through the queries of all heads that share
// them. A fragment's rows are keys here, its columns queries.
template <class T, int kD>
__global__ void __launch_bounds__(kGradThreads)
    KeyGradKernel(Gradient<AttentionArgs<T>> g, const float* delta, bool aligned) {
  using F = Fragments<T>;
  using Tile = GradTile<T, kD>;
  constexpr int kM = Tile::kM, kInner = Tile::kInner, kPitch = Tile::kPitch;
  constexpr int kThreads = kGradThreads;
  TESSERA_DYNAMIC_SHARED(Tile, shared);
  TESSERA_SHARED(QueryFacts[Tile::kStages * kInner], facts);
  const AttentionArgs<T>& a = g.forward;
  const int64_t group = a.H / a.Hkv, keys = a.L + a.T;
  const GridPlace place = PlaceInGrid((keys + Tile::kOwn - 1) / Tile::kOwn, a.Hkv);
  const int64_t tile = place.x, hkv = place.y, b = place.z;
  const int64_t k0 = tile * Tile::kOwn;
  const int K = static_cast<int>(a.K), V = static_cast<int>(a.V);
  StartTile<kThreads, Tile::kOwn, kD>(shared->own_first, K, aligned, [&](int i) -> const T* {
    if (k0 + i >= keys) return nullptr;
    return KeyRow(a, a.k, a.past_k, b, k0 + i) + hkv * a.K;
  });
  StartTile<kThreads, Tile::kOwn, kD>(shared->own_second, V, aligned, [&](int i) -> const T* {
    if (k0 + i >= keys) return nullptr;
    return KeyRow(a, a.v, a.past_v, b, k0 + i) + hkv * a.V;
  });
  cp_async_commit();
  const int row0 = Tile::Row(), column0 = Tile::Wide() * Tile::kShare;
  const int channel = Tile::Wide() * Tile::kChannels, thread = static_cast<int>(threadIdx.x);
  // The queries that may see any of these keys begin with the tile whose last sees the oldest of
  // them, and end with the tile whose first sees later ones only: found by halving, since neither
  // `high` nor `low` falls.
  const int64_t newest = k0 + Tile::kOwn - 1;
  int64_t from = 0;
  if (a.after == 0) {
    from = k0 > a.L ? (k0 - a.L) / kInner * kInner : 0;
  } else {
    from = kInner * Halving((a.T + kInner - 1) / kInner, [&](int64_t tile) {
             const int64_t end = (tile + 1) * kInner;
             return HighOf(a, b, (end < a.T ? end : a.T) - 1) < k0;
           });
  }
  const int64_t tiles =
      from < a.T
          ? Halving((a.T - from + kInner - 1) / kInner,
                    [&](int64_t tile) { return SightOf(a, b, from + tile * kInner).low <= newest; })
          : 0;
  // Tile n: of head n / tiles of the group.
  const auto start = [&](int64_t n, int stage) {
    const int64_t h = hkv * group + n / tiles, t0 = from + n % tiles * kInner;
    StartTile<kThreads, kInner, kD>(shared->first[stage], K, aligned,
                                    [&](int i) { return QueryRow(a, a.q, a.K, b, h, t0 + i); });
    StartTile<kThreads, kInner, kD>(shared->second[stage], V, aligned,
                                    [&](int i) { return QueryRow(a, g.d.o, a.V, b, h, t0 + i); });
    cp_async_commit();
  };
  const auto facts_of = [&](int64_t n) {
    const int64_t h = hkv * group + n / tiles, t = from + n % tiles * kInner + thread;
    if (thread >= kInner || t >= a.T) return QueryFacts{{INT32_MAX, -1}, 0, 0};
    const int64_t at = (b * a.H + h) * a.T + t;
    return QueryFacts{SightOf(a, b, t), kLog2E * a.lse.data[at], delta[at]};
  };
  float dk[kM][Tile::kChannels / 8][4] = {}, dv[kM][Tile::kChannels / 8][4] = {};
  const int64_t all = tiles * group;
  int stage = 0;
  if (all > 0) {
    start(0, stage);
    if (thread < kInner) facts[thread] = facts_of(0);
  }
  for (int64_t n = 0; n < all; ++n) {
    cp_async_wait<0>();
    __syncthreads();
    const bool next = n + 1 < all;
    QueryFacts later{};
    if (next) {
      if (Tile::kStages == 2) start(n + 1, 1 - stage);
      later = facts_of(n + 1);
    }
    float p[kM][Tile::kShare / 8][4] = {}, dp[kM][Tile::kShare / 8][4] = {};
    F::template Dots<Tile::kShare, kD>(shared->own_first + row0 * kPitch,
                                       shared->first[stage] + column0 * kPitch, p);
    F::template Dots<Tile::kShare, kD>(shared->own_second + row0 * kPitch,
                                       shared->second[stage] + column0 * kPitch, dp);
    const QueryFacts* const here = facts + stage * kInner + column0;
    const int key0 = static_cast<int>(k0) + row0;
    const auto grads = [&](auto capped, auto masked) {
      ForPairs(p, dp, [&](int r, int j, float& x, float& d) {
        const QueryFacts& t = here[j];
        const float logit = capped.value ? CappedLogit(a, x) : x * (a.scale * kLog2E);
        const float slope = capped.value ? CappedSlope(a, logit) : a.scale;
        const int key = key0 + FragmentRow(r);
        const bool seen = !masked.value || (key >= t.sight.low && key <= t.sight.high);
        x = seen ? Exp2(logit - t.lse) : 0;
        d = seen ? slope * x * (d - t.delta) : 0;
      });
    };
    // Of the share's queries the first sees the least far, the last forgets the most.
    if (a.soft_cap > 0)
      grads(std::true_type{}, std::true_type{});
    else if (key0 + 16 * kM - 1 > here[0].sight.high || key0 < here[Tile::kShare - 1].sight.low)
      grads(std::false_type{}, std::true_type{});
    else
      grads(std::false_type{}, std::false_type{});
    StoreFragment<Tile::kPairPitch>(p, shared->p + row0 * Tile::kPairPitch + column0);
    StoreFragment<Tile::kPairPitch>(dp, shared->ds + row0 * Tile::kPairPitch + column0);
    __syncthreads();
    F::template StoredRows<kInner, Tile::kChannels, kPitch>(shared->p + row0 * Tile::kPairPitch,
                                                            shared->second[stage] + channel, dv);
    F::template StoredRows<kInner, Tile::kChannels, kPitch>(shared->ds + row0 * Tile::kPairPitch,
                                                            shared->first[stage] + channel, dk);
    if (Tile::kStages == 2) {
      stage = 1 - stage;
    } else if (next) {
      __syncthreads();
      start(n + 1, stage);
    }
    if (next && thread < kInner) facts[stage * kInner + thread] = later;
  }
  cp_async_wait<0>();  // where there was no query
  __syncthreads();
  const auto put = [&](const auto& f, T* own, const View<T>& fresh, const View<T>& past,
                       int64_t width) {
    // A tile may begin in the past and end among the fresh rows.
    for (const bool in_past : {false, true}) {
      const View<T>& to = in_past ? past : fresh;
      if (!to) continue;
      PutFragment<kPitch>(f, own + row0 * kPitch + channel, width - channel,
                          aligned && Aligned16(to), to.mode, [&](int i) -> T* {
                            const int64_t key = k0 + row0 + i;
                            if (key >= keys || (key < a.L) != in_past) return nullptr;
                            return KeyRow(a, fresh, past, b, key) + hkv * width + channel;
                          });
      __syncwarp();
    }
  };
  put(dk, shared->own_first, g.d.k, g.d.past_k, a.K);
  put(dv, shared->own_second, g.d.v, g.d.past_v, a.V);
}

template <class T>
void AttentionGrad(const Gradient<AttentionArgs<T>>& g) {
  const AttentionArgs<T>& a = g.forward;
  const int64_t queries = a.B * a.H * a.T;
  if (queries == 0) return;
  const Scratch scratch(g.CudaScratch());
  float* const delta = scratch.floats();
  const bool aligned = AlignedRows(a) && Aligned(g.d.o);
  Launch(aligned ? DeltaKernel<kVector<T>, T> : DeltaKernel<1, T>,
         dim3{static_cast<unsigned>(CeilDivide(queries, 8))}, dim3{256}, 0, g, delta);
  ByHeadWidth(a.K, a.V, [&](auto width) {
    using Tile = GradTile<T, width.value>;
    static_assert(sizeof(Tile) + Tile::kStages * Tile::kInner * sizeof(QueryFacts) <= kSharedBytes);
    if (g.d.q)
      Launch(QueryGradKernel<T, Tile::kD>, FoldedGrid(CeilDivide(a.T, Tile::kOwn), a.H, a.B),
             dim3{kGradThreads}, sizeof(Tile), g, delta, aligned);
    if (g.d.k || g.d.v || g.d.past_k || g.d.past_v)
      Launch(KeyGradKernel<T, Tile::kD>, FoldedGrid(CeilDivide(a.L + a.T, Tile::kOwn), a.Hkv, a.B),
             dim3{kGradThreads}, sizeof(Tile), g, delta, aligned);
  });
}

}  // namespace

TESSERA_DEVICE_KERNEL_OF(Gradient<AttentionArgs<float>>, AttentionGrad)
TESSERA_DEVICE_KERNEL_OF(Gradient<AttentionArgs<bf16>>, AttentionGrad)

}  // namespace tessera::TESSERA_DEVICE
