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

template <class T>
void AttentionTile(const AttentionArgs<T>& a, const Columns& columns) {
  const int64_t ldk = Stride(a.K), ldv = Stride(a.V);
  Scratch scratch(kColumns * (ldk + ldv) + a.K * kTileStride + kKeys * (ldk + ldv + kTileStride));
  float* q = scratch.Take(kColumns * ldk);
  float* o = scratch.Take(kColumns * ldv);
  float* q_transposed = scratch.Take(a.K * kTileStride);
  float* k = scratch.Take(kKeys * ldk);
  float* v = scratch.Take(kKeys * ldv);
  float* s = scratch.Take(kKeys * kTileStride);

  LoadColumns(columns, a.q, a.q_stride, a.T, a.K, q, ldk);
  TransposedColumns(columns, q, ldk, a.K, QueryFactor(a), q_transposed);
  Running running;
  for (int64_t c = 0; c < columns.padded; c += kLanes) {
    Store(running.max + c, Splat(kNever));
    Store(running.sum + c, Splat(0));
  }
  for (int64_t i = 0; i < columns.n * ldv; i += kLanes) Store(o + i, Splat(0));

  const KeyRows<const T> keys = KeysOf(a, columns.b, columns.head);
  const KeyRows<const T> values = ValuesOf(a, columns.b, columns.head);
  for (int64_t j0 = columns.first_key; j0 <= columns.last_key; j0 += kKeys) {
    const int64_t j1 = Smaller(j0 + kKeys, columns.last_key + 1);
    int64_t c0, c1;
    columns.Seeing(j0, j1, &c0, &c1);
    if (c0 == c1) continue;
    LoadKeys(keys, j0, j1, a.K, k, ldk);
    LoadKeys(values, j0, j1, a.V, v, ldv);
    TileProduct(j1 - j0, c1 - c0, a.K, k, ldk, 1, q_transposed + c0, kTileStride, s + c0,
                kTileStride, Grad::kOverwrite);
    if (columns.SeeAll(j0, j1, c0, c1)) {
      Softmax<false>(s, j1 - j0, j0, c0, c1, a.soft_cap, columns, running);
    } else {
      Softmax<true>(s, j1 - j0, j0, c0, c1, a.soft_cap, columns, running);
    }
    Rescale(running, c0, c1, columns.n, a.V, o, ldv);
    TileProduct(Smaller(c1, columns.n) - c0, a.V, j1 - j0, s + c0, 1, kTileStride, v, ldv,
                o + c0 * ldv, ldv, Grad::kAccumulate);
  }
  StoreOutput(a, columns, running, o, ldv);
}

template <class T>
void Attention(const AttentionArgs<T>& a) {
  if (a.decode()) return AttentionDecode(a);
  const int64_t columns = a.T * (a.H / a.Hkv), tiles = (columns + kColumns - 1) / kColumns;
  const int64_t heads = a.B * a.Hkv;
  // Late tiles see the most keys: they go first, so that no thread is left with a long one.
  ParallelFor(heads * tiles, [&](int64_t chunk) {
    const int64_t begin = (tiles - 1 - chunk / heads) * kColumns, head = chunk % heads;
    AttentionTile(
        a, Columns(a, head / a.Hkv, head % a.Hkv, begin, Smaller(begin + kColumns, columns)));
  });
}

}  // namespace

TESSERA_KERNEL(Attention)

}  // namespace tessera::TESSERA_ISA
