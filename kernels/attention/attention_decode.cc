#include "kernels/attention/attention.h"
#include "kernels/attention/query_tile.h"

// Few tokens against many keys: the keys are cut into pieces of decode_keys(), whose sums are
// combined in order. Up to kDecodeQueries queries that share a key head take a piece's keys one by
// one, and nothing is computed that they do not fill; more of them go in tiles of kColumns, as in a
// forward pass over all keys.

namespace tessera::TESSERA_ISA {
namespace {

// The partial result of one column over one piece: V sums, then their maximum (in units of log 2)
// and their weight.
struct Piece {
  float* sums;
  int64_t V;
  float& max() const { return sums[V]; }
  float& weight() const { return sums[V + 1]; }
};

constexpr int64_t kBatch = 64;  // keys whose scores are held at once

// q . k over K floats, both padded with zeros to whole vectors.
inline float Dot(const float* q, const float* k, int64_t K) {
  Vec s = Splat(0);
  for (int64_t i = 0; i < K; i += kLanes) s += Load(q + i) * Load(k + i);
  return Sum(s);
}

// One column over the keys [j0, j1) held in k and v.
void DecodeBatch(const float* q, const float* k, int64_t ldk, const float* v, int64_t ldv,
                 int64_t j0, int64_t j1, int64_t low, int64_t high, float soft_cap,
                 const Piece& piece) {
  alignas(64) float s[kBatch];
  const int64_t n = j1 - j0;
  for (int64_t j = 0; j < RoundUp(n, kLanes); ++j) {
    const bool seen = j < n && j0 + j >= low && j0 + j <= high;
    s[j] = seen ? Dot(q, k + j * ldk, ldk - 16) : -__builtin_inff();
  }
  Vec tile_max = Splat(kNever);
  for (int64_t j = 0; j < n; j += kLanes) {
    if (soft_cap > 0) {
      const Vec x = Load(s + j);
      Store(s + j, x > Splat(kNever) ? soft_cap * kLog2E * Tanh(x) : x);
    }
    tile_max = Max(Load(s + j), tile_max);
  }
  const float max = MaxOf(tile_max) > piece.max() ? MaxOf(tile_max) : piece.max();
  const Vec factor = Exp2(Splat(piece.max() - max));
  Vec weight = Splat(0);
  for (int64_t j = 0; j < n; j += kLanes) {
    const Vec w = Exp2(Load(s + j) - max);
    weight += w;
    Store(s + j, w);
  }
  piece.weight() = piece.weight() * factor[0] + Sum(weight);
  piece.max() = max;
  for (int64_t i = 0; i < piece.V; i += kLanes) {
    const int64_t lanes = Smaller(kLanes, piece.V - i);
    Vec sum = Load(piece.sums + i, lanes) * factor;
    for (int64_t j = 0; j < n; ++j) sum += s[j] * Load(v + j * ldv + i);
    Store(piece.sums + i, sum, lanes);
  }
}

template <class T>
void DecodePiece(const AttentionArgs<T>& a, const Columns& columns, int64_t begin, int64_t end,
                 const Piece* pieces) {
  const int64_t ldk = Stride(a.K), ldv = Stride(a.V);
  Scratch scratch(kColumns * ldk + kBatch * (ldk + ldv));
  float* q = scratch.Take(kColumns * ldk);
  float* k = scratch.Take(kBatch * ldk);
  float* v = scratch.Take(kBatch * ldv);
  for (int64_t i = 0; i < kColumns * ldk + kBatch * (ldk + ldv); i += kLanes) {
    Store(q + i, Splat(0));
  }
  for (int64_t c = 0; c < columns.n; ++c) {
    Widened(a.q.Row(columns.b * a.T + columns.t(c)) + columns.h(c) * a.K, a.K, QueryFactor(a),
            q + c * ldk);
    for (int64_t i = 0; i < a.V; ++i) pieces[c].sums[i] = 0;
    pieces[c].max() = kNever;
    pieces[c].weight() = 0;
  }
  const KeyRows<T> keys = KeysOf(a, columns.b, columns.head);
  const KeyRows<T> values = ValuesOf(a, columns.b, columns.head);
  end = Smaller(end, columns.last_key + 1);
  for (int64_t j0 = Larger(begin, columns.first_key); j0 < end; j0 += kBatch) {
    const int64_t j1 = Smaller(j0 + kBatch, end);
    LoadKeys(keys, j0, j1, a.K, k, ldk);
    LoadKeys(values, j0, j1, a.V, v, ldv);
    for (int64_t c = 0; c < columns.n; ++c) {
      DecodeBatch(q + c * ldk, k, ldk, v, ldv, j0, j1, columns.low[c], columns.high[c], a.soft_cap,
                  pieces[c]);
    }
  }
}

// The columns of one tile over the keys [begin, end). At most kColumns pieces.
template <class T>
void DecodeTile(const AttentionArgs<T>& a, int64_t b, int64_t head, int64_t first, int64_t last,
                int64_t begin, int64_t end, const Piece* pieces) {
  const int64_t ldk = Stride(a.K), ldv = Stride(a.V);
  Scratch scratch(kColumns * (ldk + ldv) + kKeys * (ldk + ldv + kTileStride) + a.K * kTileStride);
  float* rows = scratch.Take(kColumns * ldk);
  float* k = scratch.Take(kKeys * ldk);
  float* v = scratch.Take(kKeys * ldv);
  float* s = scratch.Take(kKeys * kTileStride);
  QueryTile tile{.columns = Columns(a, b, head, first, last),
                 .q = scratch.Take(a.K * kTileStride),
                 .o = scratch.Take(kColumns * ldv)};
  tile.Start(a, rows);
  const KeyRows<T> keys = KeysOf(a, b, head), values = ValuesOf(a, b, head);
  end = Smaller(end, tile.columns.last_key + 1);
  for (int64_t j0 = Larger(begin, tile.columns.first_key); j0 < end; j0 += kKeys) {
    const int64_t j1 = Smaller(j0 + kKeys, end);
    LoadKeys(keys, j0, j1, a.K, k, ldk);
    LoadKeys(values, j0, j1, a.V, v, ldv);
    tile.Take(a.K, a.V, a.soft_cap, k, v, j0, j1, s);
  }
  for (int64_t c = 0; c < tile.columns.n; ++c) {
    const float* o = tile.o + c * ldv;
    ForLanes(a.V, [&](int64_t i, int n) { Store(pieces[c].sums + i, Load(o + i, n), n); });
    pieces[c].max() = tile.running.max[c];
    pieces[c].weight() = tile.running.sum[c];
  }
}

// o = sum over the pieces of exp(max_p - max) sums_p / sum of exp(max_p - max) weight_p. A piece's
// factor takes the place of its maximum.
template <class T>
void Combine(const AttentionArgs<T>& a, int64_t b, int64_t h, int64_t t, float* sums,
             int64_t piece_stride) {
  const int64_t pieces = a.decode_pieces();
  float max = kNever, weight = 0;
  for (int64_t p = 0; p < pieces; ++p) {
    const float m = sums[p * piece_stride + a.V];
    max = m > max ? m : max;
  }
  for (int64_t p = 0; p < pieces; ++p) {
    float* piece = sums + p * piece_stride;
    piece[a.V] = Exp2(Splat(piece[a.V] - max))[0];
    weight += piece[a.V + 1] * piece[a.V];
  }
  T* out = a.o.Row(b * a.T + t) + h * a.V;
  ForLanes(a.V, [&](int64_t i, int n) {
    Vec o = Splat(0);
    for (int64_t p = 0; p < pieces; ++p) {
      const float* piece = sums + p * piece_stride;
      o += Load(piece + i, n) * piece[a.V];
    }
    Store(out + i, o / weight, n);
  });
  if (a.lse) a.lse.data[(b * a.H + h) * a.T + t] = max * kLn2 + Log(Splat(weight))[0];
}

}  // namespace

template <class T>
void AttentionDecode(const AttentionArgs<T>& a) {
  const int64_t group = a.H / a.Hkv, n = a.key_head_queries(), heads = a.B * a.Hkv;
  const int64_t pieces = a.decode_pieces(), tiles = (n + kColumns - 1) / kColumns;
  const int64_t column_floats = a.V + 2, piece_floats = n * column_floats;
  ParallelFor(heads * pieces * tiles, [&](int64_t chunk) {
    const int64_t at = chunk / tiles, head = at / pieces, begin = at % pieces * a.decode_keys();
    const int64_t first = chunk % tiles * kColumns, last = Smaller(first + kColumns, n);
    Piece columns[kColumns];
    for (int64_t c = first; c < last; ++c) {
      columns[c - first] = {a.pieces.data + at * piece_floats + c * column_floats, a.V};
    }
    const int64_t end = begin + a.decode_keys();
    if (a.few_queries()) {
      DecodePiece(a, Columns(a, head / a.Hkv, head % a.Hkv, 0, n), begin, end, columns);
    } else {
      DecodeTile(a, head / a.Hkv, head % a.Hkv, first, last, begin, end, columns);
    }
  });
  ParallelRanges(heads * n, 64, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t head = i / n, c = i % n;
      Combine(a, head / a.Hkv, head % a.Hkv * group + c % group, c / group,
              a.pieces.data + head * pieces * piece_floats + c * column_floats, piece_floats);
    }
  });
}

template void AttentionDecode(const AttentionArgs<float>&);
template void AttentionDecode(const AttentionArgs<bf16>&);

}  // namespace tessera::TESSERA_ISA
