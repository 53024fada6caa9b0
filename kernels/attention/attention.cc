#include "kernels/attention/attention.h"

#include "kernels/attention/query_tile.h"

// The forward pass: one chunk takes up to kColumns columns through all the keys that they see.

namespace tessera::TESSERA_ISA {

template <class T>
void AttentionDecode(const AttentionArgs<T>& a);  // kernels/attention/attention_decode.cc

namespace {

template <class T>
void StoreOutput(const AttentionArgs<T>& a, const Columns& columns, const Running& running,
                 const float* o, int64_t ldo) {
  for (int64_t c = 0; c < columns.n; ++c) {
    const int64_t t = columns.t(c), h = columns.h(c);
    T* out = a.o.Row(columns.b * a.T + t) + h * a.V;
    const float inverse = 1 / running.sum[c];
    ForLanes(a.V, [&](int64_t i, int n) { Store(out + i, Load(o + c * ldo + i) * inverse, n); });
  }
  if (!a.lse) return;
  alignas(64) float lse[kColumns];
  for (int64_t c = 0; c < columns.padded; c += kLanes) {
    Store(lse + c, Load(running.max + c) * kLn2 + Log(Load(running.sum + c)));
  }
  for (int64_t c = 0; c < columns.n; ++c) {
    a.lse.data[(columns.b * a.H + columns.h(c)) * a.T + columns.t(c)] = lse[c];
  }
}

// Neighbouring tiles go together, so that a tile of keys is fetched once for all of them.
constexpr int64_t kTiles = 4;

// The columns [begin, end) of one key head, at most kTiles tiles.
template <class T>
void AttentionTiles(const AttentionArgs<T>& a, int64_t b, int64_t head, int64_t begin,
                    int64_t end) {
  const int64_t ldk = Stride(a.K), ldv = Stride(a.V), o_floats = kColumns * ldv;
  const int64_t count = (end - begin + kColumns - 1) / kColumns;
  Scratch scratch(kColumns * ldk + kKeys * (ldk + ldv + kTileStride) +
                  count * (a.K * kTileStride + o_floats));
  float* rows = scratch.Take(kColumns * ldk);
  float* k = scratch.Take(kKeys * ldk);
  float* v = scratch.Take(kKeys * ldv);
  float* s = scratch.Take(kKeys * kTileStride);
  QueryTile tiles[kTiles];
  int64_t first_key = a.L + a.T, last_key = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t from = begin + i * kColumns;
    tiles[i].columns = Columns(a, b, head, from, Smaller(from + kColumns, end));
    tiles[i].q = scratch.Take(a.K * kTileStride);
    tiles[i].o = scratch.Take(o_floats);
    tiles[i].Start(a, rows);
    first_key = Smaller(first_key, tiles[i].columns.first_key);
    last_key = Larger(last_key, tiles[i].columns.last_key);
  }
  const KeyRows<T> keys = KeysOf(a, b, head), values = ValuesOf(a, b, head);
  for (int64_t j0 = first_key; j0 <= last_key; j0 += kKeys) {
    const int64_t j1 = Smaller(j0 + kKeys, last_key + 1);
    LoadKeys(keys, j0, j1, a.K, k, ldk);
    LoadKeys(values, j0, j1, a.V, v, ldv);
    for (int64_t i = 0; i < count; ++i) tiles[i].Take(a.K, a.V, a.soft_cap, k, v, j0, j1, s);
  }
  for (int64_t i = 0; i < count; ++i) {
    StoreOutput(a, tiles[i].columns, tiles[i].running, tiles[i].o, ldv);
  }
}

template <class T>
void Attention(const AttentionArgs<T>& a) {
  if (a.decode()) return AttentionDecode(a);
  const int64_t columns = a.T * (a.H / a.Hkv), heads = a.B * a.Hkv;
  const int64_t tiles = (columns + kColumns - 1) / kColumns;
  // Fewer tiles a chunk where there are few in all: enough chunks for many threads come first.
  const int64_t width = kColumns * Larger(1, Smaller(kTiles, heads * tiles / 64));
  const int64_t chunks = (columns + width - 1) / width;
  // Late chunks see the most keys: they go first, so that no thread is left with a long one.
  ParallelFor(heads * chunks, [&](int64_t chunk) {
    const int64_t begin = (chunks - 1 - chunk / heads) * width, head = chunk % heads;
    AttentionTiles(a, head / a.Hkv, head % a.Hkv, begin, Smaller(begin + width, columns));
  });
}

}  // namespace

TESSERA_KERNEL(Attention)

}  // namespace tessera::TESSERA_ISA
