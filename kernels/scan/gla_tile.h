#ifndef TESSERA_KERNELS_SCAN_GLA_TILE_H_
#define TESSERA_KERNELS_SCAN_GLA_TILE_H_

#include "kernels/cpu/vmath.h"
#include "kernels/scan/gla_scan.h"
#include "kernels/scan/scan_tile.h"

// What both directions of the GLA scan share: a chunk's inputs in tiles, and the step from state to
// state.

namespace tessera::TESSERA_ISA {
namespace {

constexpr int64_t kC = GlaScanArgs<float>::kChunk, kSpan = GlaScanArgs<float>::kChunksPerKept;
// Columns of the state that one pass over a chunk takes at a time, so that they stay in the L1
// cache between being read and being updated.
constexpr int64_t kColumns = 64;

// One chunk of one head. Columns of q, k and the decays beyond K, up to a whole vector, are 0.
struct GlaTiles {
  int64_t K, V, padded, ldk, ldv;
  float *Q, *Kt, *decay, *since, *until;  // [16, K]: q scaled; products over the chunk, see Fill
  float *QS, *KU, *whole;                 // q o since, k o until, [K] the product of all decays
  float *v, *out, *A;                     // [16, V], [16, V], [16, 16]

  template <class T>
  GlaTiles(const GlaScanArgs<T>& a, Pieces* p)
      : K(a.K), V(a.V), padded(RoundUp(a.K, kLanes)), ldk(TileStride(a.K)), ldv(TileStride(a.V)) {
    float** const tiles[] = {&Q, &Kt, &decay, &since, &until, &QS, &KU};
    for (float** tile : tiles) *tile = p->Take(kC * ldk);
    whole = p->Take(ldk);
    v = p->Take(kC * ldv);
    out = p->Take(kC * ldv);
    A = p->Take(kC * kC);
  }

  template <class T>
  void Fill(const GlaScanArgs<T>& a, int64_t b, int64_t t0, int64_t h, int64_t rows) const {
    const int64_t row = b * a.T + t0;
    const auto at = [&](const T* x, int64_t stride, int64_t width) {
      return x + row * stride + h * width;
    };
    LoadRows(at(a.v.data, a.v.stride, V), a.v.stride, rows, V, v, ldv);
    const T *q = at(a.q.data, a.q.stride, K), *k = at(a.k.data, a.k.stride, K),
            *g = at(a.g.data, a.g.stride, K);
    // Row by row, since tokens lie a power of two apart and a walk down them would meet few sets of
    // the cache.
    for (int64_t t = 0; t < rows; ++t) {
      const bool starts = a.start.data != nullptr && a.start.data[row + t] == t0 + t;
      ForLanes(K, [&](int64_t i, int n) {
        const int64_t to = t * ldk + i;
        Store(Q + to, LoadPart(q + t * a.q.stride + i, n) * a.scale);
        Store(Kt + to, LoadPart(k + t * a.k.stride + i, n));
        Store(decay + to, starts ? Vec{} : Exp(LoadPart(g + t * a.g.stride + i, n)));
      });
    }
    for (int64_t i = 0; i < padded; i += kLanes) {
      Vec p = Splat(1.0f);
      for (int64_t t = 0; t < rows; ++t) {
        p *= Load(decay + t * ldk + i);
        Store(since + t * ldk + i, p);
        Store(QS + t * ldk + i, Load(Q + t * ldk + i) * p);
      }
      Store(whole + i, p);
      p = Splat(1.0f);
      for (int64_t t = rows - 1; t >= 0; --t) {
        Store(until + t * ldk + i, p);
        Store(KU + t * ldk + i, Load(Kt + t * ldk + i) * p);
        p *= Load(decay + t * ldk + i);
      }
    }
  }
};

// A_ts = sum_k q_tk k_sk prod_{s<r<=t} decay_rk for s <= t, 0 above: q_t walks back through the
// chunk, decaying.
inline void PairScores(const GlaTiles& w, int64_t rows, LaneSums* work) {
  for (int64_t t = 0; t < rows; ++t) {
    Vec sums[kC] = {};
    for (int64_t i = 0; i < w.padded; i += kLanes) {
      Vec x = Load(w.Q + t * w.ldk + i);
      for (int64_t s = t; s > 0; --s) {
        sums[s] += x * Load(w.Kt + s * w.ldk + i);
        x *= Load(w.decay + s * w.ldk + i);
      }
      sums[0] += x * Load(w.Kt + i);
    }
    for (int64_t s = 0; s <= t; ++s) work->Set(s, sums[s]);
    work->Sum(t + 1, w.A + t * kC);
    for (int64_t s = t + 1; s < kC; ++s) w.A[t * kC + s] = 0;
  }
}

// S = whole o S + (k o until)^T v for columns [j, j + width) of the state.
inline void Advance(const GlaTiles& w, int64_t rows, int64_t j, int64_t width, float* S) {
  for (int64_t k = 0; k < w.K; ++k) {
    float* row = S + k * w.ldv + j;
    ForLanes(width,
             [&](int64_t i, int n) { StorePart(row + i, LoadPart(row + i, n) * w.whole[k], n); });
  }
  TileProduct(w.K, width, rows, w.KU, 1, w.ldk, w.v + j, w.ldv, S + j, w.ldv, Grad::kAccumulate);
}

}  // namespace
}  // namespace tessera::TESSERA_ISA

#endif  // TESSERA_KERNELS_SCAN_GLA_TILE_H_
