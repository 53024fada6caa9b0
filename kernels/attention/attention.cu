#include "kernels/attention/attention.h"
#include "kernels/attention/attention_tile.cuh"

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
  const int64_t tiles = (a.T + Tile::kQueries - 1) / Tile::kQueries;
  const GridPlace place = PlaceInGrid(tiles, a.H);
  // The longest blocks, which see the most keys, come first.
  const int64_t q0 = (tiles - 1 - place.x) * Tile::kQueries;
  const int64_t h = place.y, b = place.z, hkv = h / (a.H / a.Hkv);
  const int64_t last = q0 + Tile::kQueries < a.T ? q0 + Tile::kQueries - 1 : a.T - 1;
  const int keys = HighOf(a, b, last) + 1;
  StartTile<kThreads, Tile::kQueries, kD>(
      shared->q, static_cast<int>(a.K), aligned, [&](int i) -> const T* {
        return q0 + i < a.T ? a.q.Row(b * a.T + q0 + i) + h * a.K : nullptr;
      });
  const auto start_keys = [&](int j0) {
    StartTile<kThreads, kRows, kD>(shared->k, static_cast<int>(a.K), aligned,
                                   [&](int i) -> const T* {
                                     if (j0 + i >= keys) return nullptr;
                                     return KeyRow(a, a.k, a.past_k, b, j0 + i) + hkv * a.K;
                                   });
    cp_async_commit();
  };
  const auto start_values = [&](int j0) {
    StartTile<kThreads, kRows, kD>(shared->v, static_cast<int>(a.V), aligned,
                                   [&](int i) -> const T* {
                                     if (j0 + i >= keys) return nullptr;
                                     return KeyRow(a, a.v, a.past_v, b, j0 + i) + hkv * a.V;
                                   });
    cp_async_commit();
  };
  // This thread's rows, and the keys that all rows of its warp see.
  const int warp = threadIdx.x / 32;
  const int64_t row0 = q0 + 16 * kM * warp;
  int low[2 * kM];
#pragma unroll
  for (int r = 0; r < 2 * kM; ++r) {
    const int64_t t = row0 + FragmentRow(r);
    low[r] = t < a.T ? SightOf(a, b, t).low : 0;
  }
  Sight seen_by_all{0, -1};
  if (row0 + 16 * kM <= a.T)
    seen_by_all = {SightOf(a, b, row0 + 16 * kM - 1).low, HighOf(a, b, row0)};
  const float scale = a.scale * kLog2E;
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
    // Which way a tile goes is asked once, not for each element.
    if (a.soft_cap > 0)
      ForFragment(s, [&](int, int, float& x) { x = CappedLogit(a, x); });
    else
      ForFragment(s, [&](int, int, float& x) { x *= scale; });
    if (j0 < seen_by_all.low || j0 + kRows - 1 > seen_by_all.high) {
      int high[2 * kM];  // asked for here, where few tiles come: registers are scarce
#pragma unroll
      for (int r = 0; r < 2 * kM; ++r) {
        const int64_t t = row0 + FragmentRow(r);
        high[r] = t < a.T ? HighOf(a, b, t) : -1;
      }
      ForFragment(s, [&](int r, int j, float& x) {
        const bool seen = j0 + j >= low[r] && j0 + j <= high[r];
        x = seen ? x : -INFINITY;
      });
    }
    ForFragment(s, [&](int r, int, float& x) { most[r] = fmaxf(most[r], x); });
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
    if (a.lse && t < a.T && threadIdx.x % 4 == 0)
      a.lse.data[(b * a.H + h) * a.T + t] = kLn2 * most[r] + logf(sum[r]);
    sum[r] = 1 / sum[r];
  }
  ForFragment(o, [&](int r, int, float& x) { x *= sum[r]; });
  // Of the queries, a warp reads its own alone.
  PutFragment<kPitch>(o, shared->q + 16 * kM * warp * kPitch, a.V, aligned, Grad::kOverwrite,
                      [&](int i) -> T* {
                        const int64_t t = row0 + i;
                        return t < a.T ? a.o.Row(b * a.T + t) + h * a.V : nullptr;
                      });
}

constexpr int kDecodeThreads = 128, kDecodeWarps = kDecodeThreads / 32;
constexpr int kPieceKeys = AttentionArgs<float>::kShortPiece;

// How a warp reads rows of up to kD channels: kLanes lanes a row, each kChunks times N neighbouring
// channels, and so kRows rows at once.
template <int kD, int N>
struct DecodeRows {
  static constexpr int kLanes = kD / N < 32 ? kD / N : 32, kRows = 32 / kLanes;
  static constexpr int kChunks = kD / (kLanes * N);
  static __device__ __forceinline__ int Channel(int chunk) {
    return (chunk * kLanes + static_cast<int>(threadIdx.x) % kLanes) * N;
  }
  template <class T>
  static __device__ __forceinline__ void Read(const T* row, int64_t width, float (&x)[kChunks][N]) {
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
#pragma unroll
      for (float& zero : x[i]) zero = 0;
      if (row != nullptr && Channel(i) < width) Load(row + Channel(i), x[i]);
    }
  }
};

// Block (p tiles + i, hkv, b), decoding: the i-th kQ of the T (H / Hkv) queries that share a key
// head, against the keys of piece p. Up to kQ queries read each key and value once, which is the
// floor; the tiles of more of them are neighbours, so that the second finds the rows in the cache.
// The scores of all keys first, then their softmax, then the sum of the values; several rows are on
// their way at once. Barriers between the three, and before the warps' sums are added up.
template <int kQ, int kD, int N, class T>
__global__ void __launch_bounds__(kDecodeThreads) DecodePieces(AttentionArgs<T> a) {
  using Rows = DecodeRows<kD, N>;
  constexpr int kChunks = Rows::kChunks, kAhead = 4;
  TESSERA_SHARED(float[kQ][kPieceKeys], p);
  TESSERA_SHARED(float[kDecodeWarps][kQ][kD], warp_o);
  TESSERA_SHARED(float[kQ], most);
  TESSERA_SHARED(float[kQ], sum);
  const int64_t group = a.H / a.Hkv, all = a.T * group, tiles = (all + kQ - 1) / kQ;
  const GridPlace place = PlaceInGrid(tiles * a.cuda_decode_pieces(), a.Hkv);
  const int64_t piece = place.x / tiles, first_query = place.x % tiles * kQ;
  const int64_t hkv = place.y, b = place.z;
  const int queries = static_cast<int>(all - first_query < kQ ? all - first_query : kQ);
  const int begin = static_cast<int>(piece) * kPieceKeys;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  float q[kQ][kChunks][N];
  Sight sight[kQ];
  int from = begin + kPieceKeys, to = begin - 1;
#pragma unroll
  for (int n = 0; n < kQ; ++n) {
    const int64_t t = (first_query + n) / group, h = hkv * group + (first_query + n) % group;
    const bool there = n < queries;
    sight[n] = there ? SightOf(a, b, t) : Sight{0, -1};
    Rows::Read(there ? a.q.Row(b * a.T + t) + h * a.K : nullptr, a.K, q[n]);
    if (!there) continue;
    from = sight[n].low < from ? sight[n].low : from;
    to = sight[n].high > to ? sight[n].high : to;
  }
  // use(place in the piece, row) for the rows of this lane, kAhead at a time; a row that no query
  // sees is null.
  const auto for_rows = [&](const View<T>& fresh, const View<T>& past, int64_t width, auto use) {
    constexpr int kStep = kDecodeWarps * Rows::kRows;
    static_assert(kPieceKeys % (kAhead * kStep) == 0);
    for (int first = warp * Rows::kRows + lane / Rows::kLanes; first < kPieceKeys;
         first += kAhead * kStep) {
      float row[kAhead][kChunks][N];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const int j = begin + first + i * kStep;
        const bool seen = j >= from && j <= to;
        Rows::Read(seen ? KeyRow(a, fresh, past, b, j) + hkv * width : nullptr, width, row[i]);
      }
#pragma unroll
      for (int i = 0; i < kAhead; ++i) use(first + i * kStep, row[i]);
    }
  };
  for_rows(a.k, a.past_k, a.K, [&](int at, const float(&key)[kChunks][N]) {
#pragma unroll
    for (int n = 0; n < kQ; ++n) {
      float dot = 0;
#pragma unroll
      for (int i = 0; i < kChunks; ++i)
#pragma unroll
        for (int c = 0; c < N; ++c) dot += q[n][i][c] * key[i][c];
#pragma unroll
      for (int lanes = Rows::kLanes / 2; lanes > 0; lanes /= 2)
        dot += __shfl_xor_sync(kAllLanes, dot, lanes);
      const bool seen = begin + at >= sight[n].low && begin + at <= sight[n].high;
      if (lane % Rows::kLanes == 0) p[n][at] = seen ? Logit(a, dot) : -INFINITY;
    }
  });
  __syncthreads();
  for (int n = warp; n < kQ; n += kDecodeWarps) {
    float largest = -INFINITY, total = 0;
    for (int i = lane; i < kPieceKeys; i += 32) largest = fmaxf(largest, p[n][i]);
    largest = WarpMax(largest);
    const float base = largest == -INFINITY ? 0 : largest;
    for (int i = lane; i < kPieceKeys; i += 32) total += p[n][i] = Exp2(p[n][i] - base);
    total = WarpSum(total);
    if (lane == 0) most[n] = largest, sum[n] = total;
  }
  __syncthreads();
  float o[kQ][kChunks][N] = {};
  for_rows(a.v, a.past_v, a.V, [&](int at, const float(&value)[kChunks][N]) {
#pragma unroll
    for (int n = 0; n < kQ; ++n)
#pragma unroll
      for (int i = 0; i < kChunks; ++i)
#pragma unroll
        for (int c = 0; c < N; ++c) o[n][i][c] += p[n][at] * value[i][c];
  });
#pragma unroll
  for (int n = 0; n < kQ; ++n)
#pragma unroll
    for (int i = 0; i < kChunks; ++i)
#pragma unroll
      for (int c = 0; c < N; ++c) {
#pragma unroll
        for (int lanes = Rows::kLanes; lanes < 32; lanes *= 2)
          o[n][i][c] += __shfl_xor_sync(kAllLanes, o[n][i][c], lanes);
        if (lane < Rows::kLanes) warp_o[warp][n][Rows::Channel(i) + c] = o[n][i][c];
      }
  __syncthreads();
  const int width = static_cast<int>(a.V) + 2;
  for (int i = thread; i < queries * width; i += kDecodeThreads) {
    const int n = i / width, c = i % width;
    const int64_t t = (first_query + n) / group, h = hkv * group + (first_query + n) % group;
    float v = c == a.V ? sum[n] : c > a.V ? most[n] : 0;
    if (c < a.V)
      for (int w = 0; w < kDecodeWarps; ++w) v += warp_o[w][n][c];
    a.pieces.data[(((b * a.cuda_decode_pieces() + piece) * a.T + t) * a.H + h) * width + c] = v;
  }
}

// Block (b T + t) H + h: combines the pieces of one query, in order; a thread a channel.
template <class T>
__global__ void __launch_bounds__(kDecodeThreads) DecodeCombine(AttentionArgs<T> a) {
  const int64_t h = blockIdx.x % a.H, t = blockIdx.x / a.H % a.T, b = blockIdx.x / a.H / a.T;
  const int64_t pieces = a.cuda_decode_pieces(), width = a.V + 2;
  const float* const first = a.pieces.data + ((b * pieces * a.T + t) * a.H + h) * width;
  const int64_t step = a.T * a.H * width;
  float most = -INFINITY;
  for (int64_t p = threadIdx.x; p < pieces; p += kDecodeThreads)
    most = fmaxf(most, first[p * step + a.V + 1]);
  most = BlockMax<kDecodeThreads>(most);
  float sum = 0;
  for (int64_t p = threadIdx.x; p < pieces; p += kDecodeThreads)
    sum += first[p * step + a.V] * Exp2(first[p * step + a.V + 1] - most);
  sum = BlockSum<kDecodeThreads>(sum);
  for (int64_t c = threadIdx.x; c < a.V; c += kDecodeThreads) {
    float o = 0;
#pragma unroll 8
    for (int64_t p = 0; p < pieces; ++p)
      o += first[p * step + c] * Exp2(first[p * step + a.V + 1] - most);
    a.o.Row(b * a.T + t)[h * a.V + c] = FromFloat<T>(o / sum);
  }
  if (threadIdx.x == 0 && a.lse) a.lse.data[(b * a.H + h) * a.T + t] = kLn2 * most + logf(sum);
}

template <int kD, int N, class T>
void Decode(const AttentionArgs<T>& a) {
  constexpr int kMost = AttentionArgs<T>::kDecodeQueries;
  const int64_t queries = a.key_head_queries();
  Launch(queries == 1   ? DecodePieces<1, kD, N, T>
         : queries <= 4 ? DecodePieces<4, kD, N, T>
                        : DecodePieces<kMost, kD, N, T>,
         FoldedGrid(a.cuda_decode_pieces() * CeilDivide(queries, kMost), a.Hkv, a.B),
         dim3{kDecodeThreads}, 0, a);
  Launch(DecodeCombine<T>, FoldedGrid(a.H, a.T, a.B), dim3{kDecodeThreads}, 0, a);
}

template <class T>
void Attention(const AttentionArgs<T>& a) {
  if (a.B * a.T * a.H == 0) return;
  ByHeadWidth(a.K, a.V, [&](auto width) {
    constexpr int kD = width.value;
    static_assert(sizeof(ForwardTile<T, kD>) <= kSharedBytes);
    if (a.decode()) return AlignedRows(a) ? Decode<kD, kVector<T>>(a) : Decode<kD, 1>(a);
    Launch(AttentionKernel<T, kD>,
           FoldedGrid(CeilDivide(a.T, ForwardTile<T, kD>::kQueries), a.H, a.B),
           dim3{kForwardThreads}, sizeof(ForwardTile<T, kD>), a, AlignedRows(a));
  });
}

}  // namespace

TESSERA_DEVICE_KERNEL(Attention)

}  // namespace tessera::TESSERA_DEVICE
