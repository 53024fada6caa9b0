#include "kernels/attention/attention.h"
#include "kernels/attention/attention_tile.h"

// The gradient of attention (Dao 2023, algorithm 2), with D_i = do_i . o_i:
//   dV_j = sum_i p_ij do_i,   ds_ij = p_ij (do_i . v_j - D_i),   dK_j = sum_i ds_ij q_i,
//   dQ_i = sum_j ds_ij k_j.
// Keys and queries are cut into blocks. A pair (key block c, query block i) recomputes its scores
// once and adds to dK, dV of c and dQ of i. The pairs run in phases, one diagonal c - i = const at
// a time: inside a phase no two pairs share a block, so every sum is taken in the order of the
// phases, whatever the number of threads.

namespace tessera::TESSERA_ISA {
namespace {

// Where a pair's contribution to a gradient goes. The first and last pairs of a block know it, from
// the shapes.
struct Turn {
  bool first, last;
};

// One row of a gradient: gathered in `sum` (fp32) until the last pair writes it to `out`.
template <class T>
void Contribute(const float* x, float factor, int64_t width, Turn turn, float* sum, T* out,
                Grad mode) {
  if (turn.last && out == nullptr) return;
  ForLanes(width, [&](int64_t i, int n) {
    Vec y = Load(x + i, n) * factor;
    if (!turn.first) y += Load(sum + i, n);
    if (!turn.last) return Store(sum + i, y, n);
    if (mode == Grad::kAccumulate) y += Load(out + i, n);
    Store(out + i, y, n);
  });
}

// The blocks of one call, and which pairs of them any query of a full document would use: of a
// query block those with neighbouring key blocks, and the other way around.
template <class T>
struct Blocks {
  const Gradient<AttentionArgs<T>>& a;
  int64_t size = a.forward.block(), keys = a.forward.L + a.forward.T;
  int64_t key_blocks = (keys + size - 1) / size;
  int64_t query_blocks = (a.forward.T + size - 1) / size;

  bool Pair(int64_t c, int64_t i) const {
    if (c < 0 || c >= key_blocks || i < 0 || i >= query_blocks) return false;
    const int64_t first_query = a.forward.L + i * size;
    const int64_t last_query = a.forward.L + Smaller((i + 1) * size, a.forward.T) - 1;
    const int64_t after = a.forward.after;
    if (after >= 0 && c * size > last_query + after) return false;
    const int64_t last_key = Smaller((c + 1) * size, keys) - 1;
    return a.forward.window <= 0 || last_key > first_query - a.forward.window;
  }
  // Later phases have a smaller c - i: a query block meets its keys from the last to the first, a
  // key block its queries from the first to the last.
  Turn QueryTurn(int64_t c, int64_t i) const { return {!Pair(c + 1, i), !Pair(c - 1, i)}; }
  Turn KeyTurn(int64_t c, int64_t i) const { return {!Pair(c, i - 1), !Pair(c, i + 1)}; }
};

// The scratch of a pair: the key block, and the tile at work.
struct PairScratch {
  int64_t ldk, ldv;
  float *k, *v, *dk, *dv;                            // [block, K or V]
  float *q, *dout, *dq;                              // [kColumns, K or V]
  float *q_transposed, *dout_transposed;             // [K or V, kColumns]
  float *p, *ds;                                     // [kKeys, kColumns]
  alignas(64) float lse[kColumns], delta[kColumns];  // lse in units of log 2

  PairScratch(int64_t block, int64_t K, int64_t V) : ldk(Stride(K)), ldv(Stride(V)) {
    Scratch scratch(2 * block * (ldk + ldv) + kColumns * (2 * ldk + ldv) +
                    (K + V + 2 * kKeys) * kTileStride);
    k = scratch.Take(block * ldk);
    v = scratch.Take(block * ldv);
    dk = scratch.Take(block * ldk);
    dv = scratch.Take(block * ldv);
    q = scratch.Take(kColumns * ldk);
    dout = scratch.Take(kColumns * ldv);
    dq = scratch.Take(kColumns * ldk);
    q_transposed = scratch.Take(K * kTileStride);
    dout_transposed = scratch.Take(V * kTileStride);
    p = scratch.Take(kKeys * kTileStride);
    ds = scratch.Take(kKeys * kTileStride);
  }
};

// The queries come times QueryFactor.
template <class T>
void LoadQueryTile(const Gradient<AttentionArgs<T>>& a, const Columns& columns, PairScratch& s) {
  const AttentionArgs<T>& f = a.forward;
  LoadColumns(columns, f.q, f.T, f.K, QueryFactor(f), s.q, s.ldk, s.q_transposed);
  LoadColumns(columns, a.d.o, f.T, f.V, 1, s.dout, s.ldv, s.dout_transposed);
  for (int64_t c = 0; c < columns.padded; ++c) {
    if (c >= columns.n) {
      s.lse[c] = s.delta[c] = 0;
      continue;
    }
    const int64_t t = columns.t(c), h = columns.h(c);
    const T* o = f.o.Row(columns.b * f.T + t) + h * f.V;
    Vec delta = Splat(0);
    ForLanes(f.V,
             [&](int64_t i, int n) { delta += Load(o + i, n) * Load(s.dout + c * s.ldv + i, n); });
    s.delta[c] = Sum(delta);
    s.lse[c] = f.lse.data[(columns.b * f.H + h) * f.T + t] * kLog2E;
  }
  for (int64_t i = 0; i < columns.n * s.ldk; i += kLanes) Store(s.dq + i, Splat(0));
}

// In place: p holds q . k (times QueryFactor) and becomes the weight, ds holds do . v and becomes
// the gradient of the score.
template <bool kCapped, bool kMasked>
inline void WeightsAndScores(const PairScratch& s, int64_t keys, int64_t j0, int64_t c0, int64_t c1,
                             float cap_log2, const Columns& columns) {
  for (int64_t j = 0; j < keys; ++j) {
    for (int64_t c = c0; c < c1; c += kLanes) {
      float *pp = s.p + j * kTileStride + c, *pd = s.ds + j * kTileStride + c;
      Vec x = Load(pp), slope = Splat(1);
      if (kCapped) {
        const Vec tanh = Tanh(x);
        slope = 1.0f - tanh * tanh;
        x = cap_log2 * tanh;
      }
      if (kMasked) x = Masked(x, columns, c, j0 + j);
      const Vec p = Exp2(x - Load(s.lse + c));
      Vec ds = p * (Load(pd) - Load(s.delta + c));
      if (kCapped) ds = ds * slope;
      Store(pp, p);
      Store(pd, ds);
    }
  }
}

// The keys [begin, end) of the block that starts at `block`.
template <class T>
void GradTile(const AttentionArgs<T>& f, const Columns& columns, int64_t block, int64_t begin,
              int64_t end, const PairScratch& s) {
  ForVisible(columns, begin, end, [&](int64_t j0, int64_t j1, int64_t c0, int64_t c1, bool masked) {
    const int64_t n = j1 - j0, row = j0 - block, real = Smaller(c1, columns.n) - c0;
    float *p = s.p + c0, *ds = s.ds + c0;
    const float *k = s.k + row * s.ldk, *v = s.v + row * s.ldv;
    TileProduct(n, c1 - c0, f.K, k, s.ldk, 1, s.q_transposed + c0, kTileStride, p, kTileStride,
                Grad::kOverwrite);
    TileProduct(n, c1 - c0, f.V, v, s.ldv, 1, s.dout_transposed + c0, kTileStride, ds, kTileStride,
                Grad::kOverwrite);
    const bool capped = f.soft_cap > 0;
    const auto weights =
        capped ? (masked ? WeightsAndScores<true, true> : WeightsAndScores<true, false>)
               : (masked ? WeightsAndScores<false, true> : WeightsAndScores<false, false>);
    weights(s, n, j0, c0, c1, f.soft_cap * kLog2E, columns);
    TileProduct(n, f.V, real, p, kTileStride, 1, s.dout + c0 * s.ldv, s.ldv, s.dv + row * s.ldv,
                s.ldv, Grad::kAccumulate);
    TileProduct(n, f.K, real, ds, kTileStride, 1, s.q + c0 * s.ldk, s.ldk, s.dk + row * s.ldk,
                s.ldk, Grad::kAccumulate);
    TileProduct(real, f.K, n, ds, 1, kTileStride, k, s.ldk, s.dq + c0 * s.ldk, s.ldk,
                Grad::kAccumulate);
  });
}

template <class T>
void ContributeKeys(const Gradient<AttentionArgs<T>>& a, int64_t b, int64_t head, int64_t begin,
                    int64_t end, Turn turn, const PairScratch& s) {
  const AttentionArgs<T>& f = a.forward;
  const KeyRows<T> dk(f, a.d.past_k, a.d.k, f.K, b, head), dv(f, a.d.past_v, a.d.v, f.V, b, head);
  float* dk_sum = a.d.sums.data + f.dq_floats();
  float* dv_sum = dk_sum + f.dk_floats();
  const float factor = f.scale / QueryFactor(f);  // the queries came scaled
  for (int64_t j = begin; j < end; ++j) {
    const int64_t row = (b * f.Hkv + head) * (f.L + f.T) + j;
    Contribute(s.dk + (j - begin) * s.ldk, factor, f.K, turn, dk_sum + row * f.K, dk.Row(j),
               (j < f.L ? a.d.past_k : a.d.k).mode);
    Contribute(s.dv + (j - begin) * s.ldv, 1, f.V, turn, dv_sum + row * f.V, dv.Row(j),
               (j < f.L ? a.d.past_v : a.d.v).mode);
  }
}

template <class T>
void ContributeQueries(const Gradient<AttentionArgs<T>>& a, const Columns& columns, Turn turn,
                       const PairScratch& s) {
  const AttentionArgs<T>& f = a.forward;
  for (int64_t c = 0; c < columns.n; ++c) {
    const int64_t t = columns.t(c), h = columns.h(c), row = columns.b * f.T + t;
    Contribute(s.dq + c * s.ldk, f.scale, f.K, turn,
               a.d.sums.data + ((columns.b * f.H + h) * f.T + t) * f.K,
               a.d.q ? a.d.q.Row(row) + h * f.K : nullptr, a.d.q.mode);
  }
}

template <class T>
void GradPair(const Blocks<T>& blocks, int64_t b, int64_t head, int64_t c, int64_t i) {
  const Gradient<AttentionArgs<T>>& a = blocks.a;
  const AttentionArgs<T>& f = a.forward;
  const int64_t G = f.H / f.Hkv, begin = c * blocks.size;
  const int64_t end = Smaller(begin + blocks.size, blocks.keys);
  PairScratch s(blocks.size, f.K, f.V);
  LoadKeys(KeysOf(f, b, head), begin, end, f.K, s.k, s.ldk);
  LoadKeys(ValuesOf(f, b, head), begin, end, f.V, s.v, s.ldv);
  for (int64_t n = 0; n < (end - begin) * s.ldk; n += kLanes) Store(s.dk + n, Splat(0));
  for (int64_t n = 0; n < (end - begin) * s.ldv; n += kLanes) Store(s.dv + n, Splat(0));

  const int64_t last_column = Smaller((i + 1) * blocks.size, f.T) * G;
  for (int64_t first = i * blocks.size * G; first < last_column; first += kColumns) {
    const Columns columns(f, b, head, first, Smaller(first + kColumns, last_column));
    LoadQueryTile(a, columns, s);
    for (int64_t j0 = begin; j0 < end; j0 += kKeys) {
      GradTile(f, columns, begin, j0, Smaller(j0 + kKeys, end), s);
    }
    ContributeQueries(a, columns, blocks.QueryTurn(c, i), s);
  }
  ContributeKeys(a, b, head, begin, end, blocks.KeyTurn(c, i), s);
}

// Keys that no query sees, past the window, have the gradient 0.
template <class T>
void ContributeNothing(const Blocks<T>& blocks) {
  const AttentionArgs<T>& f = blocks.a.forward;
  for (int64_t c = 0; c < blocks.key_blocks; ++c) {
    bool seen = false;
    for (int64_t i = 0; i < blocks.query_blocks; ++i) seen |= blocks.Pair(c, i);
    if (seen) continue;
    const int64_t begin = c * blocks.size, end = Smaller(begin + blocks.size, blocks.keys);
    ParallelFor(f.B * f.Hkv, [&](int64_t head) {
      PairScratch s(blocks.size, f.K, f.V);
      for (int64_t n = 0; n < (end - begin) * s.ldk; n += kLanes) Store(s.dk + n, Splat(0));
      for (int64_t n = 0; n < (end - begin) * s.ldv; n += kLanes) Store(s.dv + n, Splat(0));
      ContributeKeys(blocks.a, head / f.Hkv, head % f.Hkv, begin, end, {true, true}, s);
    });
  }
}

template <class T>
void AttentionGrad(const Gradient<AttentionArgs<T>>& a) {
  const Blocks<T> blocks{a};
  const int64_t heads = a.forward.B * a.forward.Hkv;
  for (int64_t diagonal = blocks.key_blocks - 1; diagonal > -blocks.query_blocks; --diagonal) {
    const int64_t from = Larger(0, -diagonal);
    const int64_t to = Smaller(blocks.query_blocks, blocks.key_blocks - diagonal);
    ParallelFor(heads * (to - from), [&](int64_t chunk) {
      const int64_t i = from + chunk / heads, head = chunk % heads;
      if (!blocks.Pair(i + diagonal, i)) return;
      GradPair(blocks, head / a.forward.Hkv, head % a.forward.Hkv, i + diagonal, i);
    });
  }
  ContributeNothing(blocks);
}

}  // namespace

TESSERA_KERNEL_OF(Gradient<AttentionArgs<float>>, AttentionGrad)
TESSERA_KERNEL_OF(Gradient<AttentionArgs<bf16>>, AttentionGrad)

}  // namespace tessera::TESSERA_ISA
