#ifndef TESSERA_KERNELS_ATTENTION_QUERY_TILE_H_
#define TESSERA_KERNELS_ATTENTION_QUERY_TILE_H_

#include "kernels/attention/attention_tile.h"

// Columns on their way through keys, with a running maximum and sum: what a forward pass over all
// keys and decoding over a piece of them share.

namespace tessera::TESSERA_ISA {
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

// One tile of columns on its way through the keys.
struct QueryTile {
  Columns columns;
  float *q, *o;  // [K, columns] times QueryFactor; [columns, V]
  Running running;

  template <class T>
  void Start(const AttentionArgs<T>& a, float* rows) {
    LoadColumns(columns, a.q, a.T, a.K, QueryFactor(a), rows, Stride(a.K), q);
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

}  // namespace
}  // namespace tessera::TESSERA_ISA

#endif  // TESSERA_KERNELS_ATTENTION_QUERY_TILE_H_
