#include "kernels/attention.h"
#include "kernels/cuda/attention_tile.h"

namespace tessera::TESSERA_DEVICE {
namespace {

template <class T, int kD>
struct ForwardShared {
  static constexpr int kPitch = Fragments<T>::Pitch(kD), kRows = kInner<T, kD>;
  alignas(16) T q[kOuter * kPitch], k[kRows * kPitch], v[kRows * kPitch];
  alignas(16) float scratch[kAttentionThreads / 32][Fragments<T>::ScratchFloats(kRows) + 4];
};

// Block (i, h, b) has queries [64 i, 64 i + 64) of head h, warp w 16 of them, and goes through the
// keys that any of them sees, a tile at a time, with a running maximum and sum for each query
// (Dao 2023, algorithm 1). Barriers: a tile is whole before it is read, and read by all before the
// next one takes its place.
template <class T, int kD>
__global__ void __launch_bounds__(kAttentionThreads)
    AttentionKernel(AttentionArgs<T> a, bool aligned) {
  using F = Fragments<T>;
  using Shared = ForwardShared<T, kD>;
  constexpr int kRows = Shared::kRows;
  TESSERA_DYNAMIC_SHARED(Shared, shared);
  const int64_t q0 = int64_t{blockIdx.x} * kOuter, h = blockIdx.y, b = blockIdx.z;
  const int64_t hkv = h / (a.H / a.Hkv);
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4;
  const int64_t last = q0 + kOuter < a.T ? q0 + kOuter - 1 : a.T - 1;
  LoadTile<kAttentionThreads, kOuter, kD>(shared->q, a.K, aligned, [&](int i) -> const T* {
    return q0 + i < a.T ? a.q + (b * a.T + q0 + i) * a.q_stride + h * a.K : nullptr;
  });
  int64_t first = a.L + q0;
  for (int64_t t = q0; t <= last; ++t) {
    const int64_t low = SightOf(a, b, t).low;
    first = low < first ? low : first;
  }
  // This thread's rows.
  const int64_t row[2] = {q0 + 16 * warp + g, q0 + 16 * warp + g + 8};
  Sight sight[2];
  for (int r = 0; r < 2; ++r) sight[r] = row[r] < a.T ? SightOf(a, b, row[r]) : Sight{0, -1};
  float o[kD / 8][4] = {}, most[2] = {-INFINITY, -INFINITY}, sum[2] = {};
  for (int64_t j0 = first / kRows * kRows; j0 <= a.L + last; j0 += kRows) {
    __syncthreads();
    const auto key_row = [&](const T* fresh, int64_t stride, const T* past, int64_t past_stride,
                             int64_t width, int i) -> const T* {
      if (j0 + i >= a.L + a.T) return nullptr;
      return KeyRow(a, fresh, stride, past, past_stride, b, j0 + i) + hkv * width;
    };
    LoadTile<kAttentionThreads, kRows, kD>(shared->k, a.K, aligned, [&](int i) {
      return key_row(a.k, a.k_stride, a.past_k, a.past_k_stride, a.K, i);
    });
    LoadTile<kAttentionThreads, kRows, kD>(shared->v, a.V, aligned, [&](int i) {
      return key_row(a.v, a.v_stride, a.past_v, a.past_v_stride, a.V, i);
    });
    __syncthreads();
    float s[kRows / 8][4] = {}, most_here[2] = {most[0], most[1]};
    F::template Dots<kRows, kD>(shared->q + 16 * warp * Shared::kPitch, shared->k, s);
    ForFragment(s, [&](int i, int j, float& x) {
      const int r = i == g ? 0 : 1;
      x = j0 + j >= sight[r].low && j0 + j <= sight[r].high ? Logit(a, x) : -INFINITY;
      most_here[r] = fmaxf(most_here[r], x);
    });
    float fade[2], base[2];
    for (int r = 0; r < 2; ++r) {
      most_here[r] = RowMax(most_here[r]);
      base[r] = most_here[r] == -INFINITY ? 0 : most_here[r];  // where nothing is seen yet
      fade[r] = expf(most[r] - base[r]);
      most[r] = most_here[r];
      sum[r] *= fade[r];
    }
    ForFragment(s, [&](int i, int, float& x) {
      const int r = i == g ? 0 : 1;
      x = expf(x - base[r]);
      sum[r] += x;
    });
    ForFragment(o, [&](int i, int, float& x) { x *= fade[i == g ? 0 : 1]; });
    F::template Rows<kRows, kD>(s, shared->v, shared->scratch[warp], o);
  }
  for (int r = 0; r < 2; ++r) {
    sum[r] = RowSum(sum[r]);
    if (a.lse != nullptr && row[r] < a.T && threadIdx.x % 4 == 0)
      a.lse[(b * a.H + h) * a.T + row[r]] = most[r] + logf(sum[r]);
  }
  ForFragment(o, [&](int i, int v, float& x) {
    const int r = i == g ? 0 : 1;
    if (row[r] < a.T && v < a.V)
      a.o[(b * a.T + row[r]) * a.o_stride + h * a.V + v] = FromFloat<T>(x / sum[r]);
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
      const float fade = expf(most[n] - larger), p = expf(s - larger);
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
        total += (c < a.V ? warp_o[w][c] : warp_sum[w]) * expf(warp_most[w] - base);
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
  for (int64_t p = 0; p < pieces; ++p) sum += piece(p)[a.V] * expf(piece(p)[a.V + 1] - most);
  for (int64_t c = threadIdx.x; c < a.V; c += kDecodeThreads) {
    float o = 0;
    for (int64_t p = 0; p < pieces; ++p) o += piece(p)[c] * expf(piece(p)[a.V + 1] - most);
    a.o[(b * a.T + t) * a.o_stride + h * a.V + c] = FromFloat<T>(o / sum);
  }
  if (threadIdx.x == 0 && a.lse != nullptr) a.lse[(b * a.H + h) * a.T + t] = most + logf(sum);
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
    if (a.decode()) return Decode(a);
    Launch(AttentionKernel<T, kD>,
           dim3{static_cast<unsigned>(CeilDivide(a.T, kOuter)), static_cast<unsigned>(a.H),
                static_cast<unsigned>(a.B)},
           dim3{kAttentionThreads}, sizeof(ForwardShared<T, kD>), a, AlignedKeys(a));
  });
}

}  // namespace

TESSERA_DEVICE_KERNEL(Attention)

}  // namespace tessera::TESSERA_DEVICE
