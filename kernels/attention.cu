#include "kernels/attention.h"
#include "kernels/cuda/attention_tile.h"

namespace tessera::TESSERA_DEVICE {
namespace {

constexpr int kForwardThreads = 128;

// Four warps of 16 kM queries against tiles of kRows keys: as many as registers and shared memory
// hold.
template <class T, int kD>
struct ForwardTile {
  static constexpr bool kHalf = sizeof(T) == 2;
  static constexpr int kM = kHalf && kD <= 128 ? 2 : 1, kRows = kD > 128 ? 32 : 64;
  static constexpr int kQueries = kForwardThreads / 32 * 16 * kM;
  static constexpr int kPitch = Fragments<T>::Pitch(kD);
  alignas(16) T q[kQueries * kPitch], k[kRows * kPitch], v[kRows * kPitch];
  alignas(16) float scratch[kForwardThreads / 32][Fragments<T>::ScratchFloats(kRows) + 4];
};

// Block (i, h, b) has the i-th kQueries queries of head h and goes through the keys that any of
// them sees, a tile at a time, with a running maximum and sum for each query (Dao 2023, algorithm
// 1). While a tile of keys is multiplied its values are copied, and while those are multiplied the
// next keys. Barriers: a tile is whole before it is read, and read by all before the next one takes
// its place.
template <class T, int kD>
__global__ void __launch_bounds__(kForwardThreads)
    AttentionKernel(AttentionArgs<T> a, bool aligned) {
  using F = Fragments<T>;
  using Tile = ForwardTile<T, kD>;
  constexpr int kM = Tile::kM, kRows = Tile::kRows, kPitch = Tile::kPitch;
  constexpr int kThreads = kForwardThreads;
  TESSERA_DYNAMIC_SHARED(Tile, shared);
  // The longest blocks, which see the most keys, come first.
  const int64_t q0 = int64_t{gridDim.x - 1 - blockIdx.x} * Tile::kQueries;
  const int64_t h = blockIdx.y, b = blockIdx.z, hkv = h / (a.H / a.Hkv);
  const int64_t last = q0 + Tile::kQueries < a.T ? q0 + Tile::kQueries - 1 : a.T - 1;
  const int keys = static_cast<int>(a.L + last) + 1;
  StartTile<kThreads, Tile::kQueries, kD>(
      shared->q, static_cast<int>(a.K), aligned, [&](int i) -> const T* {
        return q0 + i < a.T ? a.q + (b * a.T + q0 + i) * a.q_stride + h * a.K : nullptr;
      });
  const auto start_keys = [&](int j0) {
    StartTile<kThreads, kRows, kD>(
        shared->k, static_cast<int>(a.K), aligned, [&](int i) -> const T* {
          if (j0 + i >= keys) return nullptr;
          return KeyRow(a, a.k, a.k_stride, a.past_k, a.past_k_stride, b, j0 + i) + hkv * a.K;
        });
    cp_async_commit();
  };
  const auto start_values = [&](int j0) {
    StartTile<kThreads, kRows, kD>(
        shared->v, static_cast<int>(a.V), aligned, [&](int i) -> const T* {
          if (j0 + i >= keys) return nullptr;
          return KeyRow(a, a.v, a.v_stride, a.past_v, a.past_v_stride, b, j0 + i) + hkv * a.V;
        });
    cp_async_commit();
  };
  // This thread's rows, and the keys that all rows of its warp see.
  const int warp = threadIdx.x / 32;
  const int64_t row0 = q0 + 16 * kM * warp;
  const int high0 = static_cast<int>(a.L + row0) + FragmentRow(0);
  int low[2 * kM];
#pragma unroll
  for (int r = 0; r < 2 * kM; ++r) {
    const int64_t t = row0 + FragmentRow(r);
    low[r] = t < a.T ? SightOf(a, b, t).low : 0;
  }
  Sight seen_by_all{0, -1};
  if (row0 + 16 * kM <= a.T)
    seen_by_all = {SightOf(a, b, row0 + 16 * kM - 1).low, static_cast<int>(a.L + row0)};
  float o[kM][kD / 8][4] = {}, most[2 * kM], sum[2 * kM] = {};
  for (float& m : most) m = -INFINITY;
  int j0 = SightOf(a, b, q0).low / kRows * kRows;
  start_keys(j0);
  for (; j0 < keys; j0 += kRows) {
    cp_async_wait<0>();
    __syncthreads();  // the keys are there, and the values before them read
    start_values(j0);
    float s[kM][kRows / 8][4] = {};
    F::template Dots<kRows, kD>(shared->q + 16 * kM * warp * kPitch, shared->k, s);
    float before[2 * kM];
    for (int r = 0; r < 2 * kM; ++r) before[r] = most[r];
    if (j0 >= seen_by_all.low && j0 + kRows - 1 <= seen_by_all.high) {
      ForFragment(s, [&](int r, int, float& x) {
        x = Logit(a, x);
        most[r] = fmaxf(most[r], x);
      });
    } else {
      ForFragment(s, [&](int r, int j, float& x) {
        const bool seen = j0 + j >= low[r] && j0 + j <= high0 + FragmentRow(r) - FragmentRow(0);
        x = seen ? Logit(a, x) : -INFINITY;
        most[r] = fmaxf(most[r], x);
      });
    }
    float fade[2 * kM], base[2 * kM];
#pragma unroll
    for (int r = 0; r < 2 * kM; ++r) {
      most[r] = RowMax(most[r]);
      base[r] = most[r] == -INFINITY ? 0 : most[r];  // where nothing is seen yet
      fade[r] = Exp2(before[r] - base[r]);
      sum[r] *= fade[r];
    }
    ForFragment(s, [&](int r, int, float& x) {
      x = Exp2(x - base[r]);
      sum[r] += x;
    });
    ForFragment(o, [&](int r, int, float& x) { x *= fade[r]; });
    cp_async_wait<0>();
    __syncthreads();  // the values are there, and the keys read
    if (j0 + kRows < keys) start_keys(j0 + kRows);
    F::template Rows<kRows, kD, kPitch>(s, shared->v, shared->scratch[warp], o);
  }
#pragma unroll
  for (int r = 0; r < 2 * kM; ++r) {
    const int64_t t = row0 + FragmentRow(r);
    sum[r] = RowSum(sum[r]);
    if (a.lse != nullptr && t < a.T && threadIdx.x % 4 == 0)
      a.lse[(b * a.H + h) * a.T + t] = kLn2 * most[r] + logf(sum[r]);
    sum[r] = 1 / sum[r];
  }
  ForFragment(o, [&](int r, int, float& x) { x *= sum[r]; });
  // Of the queries, a warp reads its own alone.
  PutFragment<kPitch>(o, shared->q + 16 * kM * warp * kPitch, a.V, aligned, Grad::kOverwrite,
                      [&](int i) -> T* {
                        const int64_t t = row0 + i;
                        return t < a.T ? a.o + (b * a.T + t) * a.o_stride + h * a.V : nullptr;
                      });
}

constexpr int kDecodeThreads = 128, kDecodeWarps = kDecodeThreads / 32;
constexpr int kLaneChannels = kMaxHeadWidth / 32;

// Block (p, hkv, b), decoding: the T (H / Hkv) <= kQ queries that share a key head, against the
// keys of piece p. A warp takes every fourth key; its lanes have channels lane, lane + 32, ... of
// keys, values and sums, so that each key and value is read once for all queries, which is the
// floor. The warps' sums of a query meet in shared memory, whole before they are read and read
// before the next query's come, and go to the workspace.
template <int kQ, class T>
__global__ void __launch_bounds__(kDecodeThreads) DecodePieces(AttentionArgs<T> a) {
  TESSERA_SHARED(float[kDecodeWarps], warp_most);
  TESSERA_SHARED(float[kDecodeWarps], warp_sum);
  TESSERA_SHARED(float[kDecodeWarps][kMaxHeadWidth], warp_o);
  const int64_t piece = blockIdx.x, hkv = blockIdx.y, b = blockIdx.z, group = a.H / a.Hkv;
  const int64_t queries = a.T * group, begin = piece * a.kDecodeKeys, end = begin + a.kDecodeKeys;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  float q[kQ][kLaneChannels], o[kQ][kLaneChannels] = {}, most[kQ], sum[kQ] = {};
  Sight sight[kQ];
  int64_t from = end, to = begin - 1;
#pragma unroll
  for (int n = 0; n < kQ; ++n) {
    most[n] = -INFINITY;
    sight[n] = {0, -1};
    if (n >= queries) continue;
    const int64_t t = n / group, h = hkv * group + n % group;
    sight[n] = SightOf(a, b, t);
    from = sight[n].low < from ? sight[n].low : from;
    to = sight[n].high > to ? sight[n].high : to;
#pragma unroll
    for (int i = 0; i < kLaneChannels; ++i)
      q[n][i] = lane + 32 * i < a.K
                    ? ToFloat(a.q[(b * a.T + t) * a.q_stride + h * a.K + lane + 32 * i])
                    : 0;
  }
  from = from > begin ? from : begin;
  to = to < end - 1 ? to : end - 1;
  for (int64_t j = from + warp; j <= to; j += kDecodeWarps) {
    const T* k = KeyRow(a, a.k, a.k_stride, a.past_k, a.past_k_stride, b, j) + hkv * a.K;
    const T* v = KeyRow(a, a.v, a.v_stride, a.past_v, a.past_v_stride, b, j) + hkv * a.V;
    float key[kLaneChannels], value[kLaneChannels];
#pragma unroll
    for (int i = 0; i < kLaneChannels; ++i) {
      key[i] = lane + 32 * i < a.K ? ToFloat(k[lane + 32 * i]) : 0;
      value[i] = lane + 32 * i < a.V ? ToFloat(v[lane + 32 * i]) : 0;
    }
#pragma unroll
    for (int n = 0; n < kQ; ++n) {
      if (j < sight[n].low || j > sight[n].high) continue;  // the whole warp
      float dot = 0;
#pragma unroll
      for (int i = 0; i < kLaneChannels; ++i) dot += q[n][i] * key[i];
      const float s = Logit(a, WarpSum(dot)), larger = fmaxf(most[n], s);
      const float fade = Exp2(most[n] - larger), p = Exp2(s - larger);
      most[n] = larger;
      sum[n] = sum[n] * fade + p;
#pragma unroll
      for (int i = 0; i < kLaneChannels; ++i) o[n][i] = o[n][i] * fade + p * value[i];
    }
  }
#pragma unroll
  for (int n = 0; n < kQ; ++n) {
    if (n >= queries) break;
#pragma unroll
    for (int i = 0; i < kLaneChannels; ++i) warp_o[warp][lane + 32 * i] = o[n][i];
    if (lane == 0) {
      warp_most[warp] = most[n];
      warp_sum[warp] = sum[n];
    }
    __syncthreads();
    const int64_t t = n / group, h = hkv * group + n % group;
    float* out = a.workspace + (((b * gridDim.x + piece) * a.T + t) * a.H + h) * (a.V + 2);
    float all = -INFINITY;
    for (const float m : warp_most) all = fmaxf(all, m);
    const float base = all == -INFINITY ? 0 : all;
    for (int64_t c = threadIdx.x; c < a.V + 2; c += kDecodeThreads) {
      float total = 0;
      for (int w = 0; w < kDecodeWarps; ++w)
        total += (c < a.V ? warp_o[w][c] : warp_sum[w]) * Exp2(warp_most[w] - base);
      out[c] = c == a.V + 1 ? all : total;
    }
    __syncthreads();
  }
}

// Block (t H + h, b): combines the pieces of one query, in order; a thread a channel.
template <class T>
__global__ void __launch_bounds__(kDecodeThreads) DecodeCombine(AttentionArgs<T> a) {
  const int64_t t = blockIdx.x / a.H, h = blockIdx.x % a.H, b = blockIdx.y;
  const int64_t pieces = a.decode_pieces(), width = a.V + 2;
  const auto piece = [&](int64_t p) {
    return a.workspace + (((b * pieces + p) * a.T + t) * a.H + h) * width;
  };
  float most = -INFINITY, sum = 0;
  for (int64_t p = 0; p < pieces; ++p) most = fmaxf(most, piece(p)[a.V + 1]);
  for (int64_t p = 0; p < pieces; ++p) sum += piece(p)[a.V] * Exp2(piece(p)[a.V + 1] - most);
  for (int64_t c = threadIdx.x; c < a.V; c += kDecodeThreads) {
    float o = 0;
    for (int64_t p = 0; p < pieces; ++p) o += piece(p)[c] * Exp2(piece(p)[a.V + 1] - most);
    a.o[(b * a.T + t) * a.o_stride + h * a.V + c] = FromFloat<T>(o / sum);
  }
  if (threadIdx.x == 0 && a.lse != nullptr)
    a.lse[(b * a.H + h) * a.T + t] = kLn2 * most + logf(sum);
}

template <class T>
void Decode(const AttentionArgs<T>& a) {
  const int64_t queries = a.T * (a.H / a.Hkv);
  const auto B = static_cast<unsigned>(a.B);
  Launch(queries == 1   ? DecodePieces<1, T>
         : queries <= 4 ? DecodePieces<4, T>
                        : DecodePieces<AttentionArgs<T>::kDecodeQueries, T>,
         dim3{static_cast<unsigned>(a.decode_pieces()), static_cast<unsigned>(a.Hkv), B},
         dim3{kDecodeThreads}, 0, a);
  Launch(DecodeCombine<T>, dim3{static_cast<unsigned>(a.T * a.H), B}, dim3{kDecodeThreads}, 0, a);
}

template <class T>
void Attention(const AttentionArgs<T>& a) {
  if (a.B * a.T * a.H == 0) return;
  ByHeadWidth(a.K, a.V, [&](auto width) {
    constexpr int kD = width.value;
    static_assert(sizeof(ForwardTile<T, kD>) <= kSharedBytes);
    if (a.decode()) return Decode(a);
    Launch(AttentionKernel<T, kD>,
           dim3{static_cast<unsigned>(CeilDivide(a.T, ForwardTile<T, kD>::kQueries)),
                static_cast<unsigned>(a.H), static_cast<unsigned>(a.B)},
           dim3{kForwardThreads}, sizeof(ForwardTile<T, kD>), a, AlignedRows(a));
  });
}

}  // namespace

TESSERA_DEVICE_KERNEL(Attention)

}  // namespace tessera::TESSERA_DEVICE
