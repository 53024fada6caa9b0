#include "kernels/attention.h"

#include "kernels/cpu/attention_tile.h"

// The forward pass: one chunk takes up to kColumns columns through all the keys that they see.

namespace tessera::TESSERA_ISA {

template <class T>
void AttentionDecode(const AttentionArgs<T>& a);  // kernels/attention_decode.cc

namespace {

// Running maximum and sum of the columns. The maximum is in units of log 2, and only followed when
// a score exceeds it by kSlack: until then the sums are merely larger by up to 2^kSlack, and
// nothing needs rescaling.
struct Running {
  static constexpr float kSlack = 8;
  alignas(64) float max[kColumns], sum[kColumns], rescale[kColumns];
  bool rescaled[kColumns / kLanes];
};

inline bool Any(IVec lanes) {
#ifdef __AVX512F__
  return _mm512_movepi32_mask((__m512i)lanes) != 0;
#else
  return _mm256_movemask_ps((__m256)lanes) != 0;
#endif
}

// Turns the scores s[keys, columns c..] of one vector of columns into weights exp(s - max).
template <bool kCapped, bool kMasked>
inline void SoftmaxVector(float* s, int64_t keys, int64_t j0, int64_t c, float cap_log2,
                          const Columns& columns, Running& running) {
  Vec m[4] = {Splat(kNever), Splat(kNever), Splat(kNever), Splat(kNever)};
  for (int64_t j = 0; j < keys; j += 4) {
#pragma GCC unroll 4
    for (int64_t i = 0; i < 4; ++i) {
      if (j + i >= keys) break;
      float* p = s + (j + i) * kTileStride + c;
      Vec x = Load(p);
      if (kCapped) x = cap_log2 * Tanh(x);
      if (kMasked) x = Masked(x, columns, c, j0 + j + i);
      if (kCapped || kMasked) Store(p, x);
      m[i] = Max(x, m[i]);
    }
  }
  const Vec tile_max = Max(Max(m[0], m[1]), Max(m[2], m[3]));
  Vec max = Load(running.max + c), sum = Load(running.sum + c);
  const bool rescale = Any(tile_max > max + Running::kSlack);
  running.rescaled[c / kLanes] = rescale;
  if (rescale) {
    const Vec new_max = Max(tile_max, max), factor = Exp2(max - new_max);
    max = new_max;
    sum = sum * factor;
    Store(running.max + c, max);
    Store(running.rescale + c, factor);
  }
  for (int64_t j = 0; j < keys; ++j) {
    float* p = s + j * kTileStride + c;
    const Vec weight = Exp2(Load(p) - max);
    sum += weight;
    Store(p, weight);
  }
  Store(running.sum + c, sum);
}

template <bool kMasked>
inline void Softmax(float* s, int64_t keys, int64_t j0, int64_t c0, int64_t c1, float soft_cap,
                    const Columns& columns, Running& running) {
  for (int64_t c = c0; c < c1; c += kLanes) {
    if (soft_cap > 0) {
      SoftmaxVector<true, kMasked>(s, keys, j0, c, soft_cap * kLog2E, columns, running);
    } else {
      SoftmaxVector<false, kMasked>(s, keys, j0, c, 0, columns, running);
    }
  }
}

void Rescale(const Running& running, int64_t c0, int64_t c1, int64_t n, int64_t V, float* o,
             int64_t ldo) {
  for (int64_t c = c0; c < c1; ++c) {
    if (!running.rescaled[c / kLanes] || c >= n) continue;
    float* row = o + c * ldo;
    for (int64_t i = 0; i < RoundUp(V, kLanes); i += kLanes) {
      Store(row + i, Load(row + i) * running.rescale[c]);
    }
  }
}

template <class T>
void StoreOutput(const AttentionArgs<T>& a, const Columns& columns, const Running& running,
                 const float* o, int64_t ldo) {
  for (int64_t c = 0; c < columns.n; ++c) {
    const int64_t t = columns.t(c), h = columns.h(c);
    T* out = a.o + (columns.b * a.T + t) * a.o_stride + h * a.V;
    const float inverse = 1 / running.sum[c];
    ForLanes(a.V, [&](int64_t i, int n) { Store(out + i, Load(o + c * ldo + i) * inverse, n); });
  }
  if (a.lse == nullptr) return;
  alignas(64) float lse[kColumns];
  for (int64_t c = 0; c < columns.padded; c += kLanes) {
    Store(lse + c, Load(running.max + c) * kLn2 + Log(Load(running.sum + c)));
  }
  for (int64_t c = 0; c < columns.n; ++c) {
    a.lse[(columns.b * a.H + columns.h(c)) * a.T + columns.t(c)] = lse[c];
  }
}

// One tile of columns on its way through the keys.
struct QueryTile {
  Columns columns;
  float *q, *o;  // [K, columns] times QueryFactor; [columns, V]
  Running running;

  template <class T>
  void Start(const AttentionArgs<T>& a, float* rows) {
    LoadColumns(columns, a.q, a.q_stride, a.T, a.K, QueryFactor(a), rows, Stride(a.K), q);
    for (int64_t c = 0; c < columns.padded; c += kLanes) {
      Store(running.max + c, Splat(kNever));
      Store(running.sum + c, Splat(0));
    }
    for (int64_t i = 0; i < columns.n * Stride(a.V); i += kLanes) Store(o + i, Splat(0));
  }

  // Takes in the keys [begin, end), which k and v hold. s is scratch for their scores.
  void Take(int64_t K, int64_t V, float soft_cap, const float* k, const float* v, int64_t begin,
            int64_t end, float* s) {
    const int64_t ldk = Stride(K), ldv = Stride(V);
    ForVisible(columns, begin, end,
               [&](int64_t j0, int64_t j1, int64_t c0, int64_t c1, bool masked) {
                 TileProduct(j1 - j0, c1 - c0, K, k + (j0 - begin) * ldk, ldk, 1, q + c0,
                             kTileStride, s + c0, kTileStride, Grad::kOverwrite);
                 if (masked) {
                   Softmax<true>(s, j1 - j0, j0, c0, c1, soft_cap, columns, running);
                 } else {
                   Softmax<false>(s, j1 - j0, j0, c0, c1, soft_cap, columns, running);
                 }
                 Rescale(running, c0, c1, columns.n, V, o, ldv);
                 TileProduct(Smaller(c1, columns.n) - c0, V, j1 - j0, s + c0, 1, kTileStride,
                             v + (j0 - begin) * ldv, ldv, o + c0 * ldv, ldv, Grad::kAccumulate);
               });
  }
};

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
  const KeyRows<const T> keys = KeysOf(a, b, head), values = ValuesOf(a, b, head);
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
