#ifndef TESSERA_KERNELS_SCAN_SSD_TILE_H_
#define TESSERA_KERNELS_SCAN_SSD_TILE_H_

#include "kernels/cpu/vmath.h"
#include "kernels/scan/scan_tile.h"
#include "kernels/scan/ssd_scan.h"

// What both directions of the SSD scan share: which heads and tokens a task has, the step sizes and
// decays of a chunk, and its causal matrix.

namespace tessera::TESSERA_ISA {
namespace {

constexpr int64_t kQ = 64, kMaxHeads = 8, kBlock = 16;
static_assert(kQ == SsdScanArgs<float>::kChunk && kQ == LaneSums::kRows);

// Heads [h, h + heads) of group g in batch row b.
struct SsdTask {
  int64_t b, g, share, h, heads;

  template <class T>
  SsdTask(const SsdScanArgs<T>& a, int64_t index) {
    const int64_t shares = a.tasks_per_group(), each = a.heads_per_task(), group = a.H / a.G;
    share = index % shares;
    g = index / shares % a.G;
    b = index / shares / a.G;
    h = g * group + share * each;
    heads = Smaller(each, group - share * each);
  }
};

// Of each head and token of a chunk: the step size, how fast it grows with the raw one, and the
// decay of the state; 0 where a document starts.
struct SsdSteps {
  alignas(64) float dt[kMaxHeads][kQ], slope[kMaxHeads][kQ], decay[kMaxHeads][kQ];
  float rate[kMaxHeads];  // exp(A_log)

  template <class T>
  void Read(const SsdScanArgs<T>& a, const SsdTask& task, int64_t t0, int64_t rows) {
    const int heads = static_cast<int>(task.heads);
    alignas(64) float line[3][16];
    for (int j = 0; j < heads; j += kLanes) {
      const int n = heads - j < kLanes ? heads - j : kLanes;
      const Vec bias = Load(a.dt_bias.data + task.h + j, n),
                r = Exp(Load(a.A_log.data + task.h + j, n));
      StorePart(rate + j, r, n);
      for (int64_t t = 0; t < rows; ++t) {
        const int64_t row = task.b * a.T + t0 + t;
        const Vec raw = Load(a.dt.data + row * a.dt.stride + task.h + j, n) + bias;
        const Vec step = Softplus(raw);
        const bool starts = a.start.data != nullptr && a.start.data[row] == t0 + t;
        Store(line[0], step);
        Store(line[1], Sigmoid(raw));
        Store(line[2], starts ? Vec{} : Exp(-r * step));
        for (int i = 0; i < n; ++i) {
          dt[j + i][t] = line[0][i];
          slope[j + i][t] = line[1][i];
          decay[j + i][t] = line[2][i];
        }
      }
    }
  }
};

// Products of decays: since[t] over the chunk's start to t, until[t] from t + 1 to its end.
struct SsdReach {
  float since[kQ], until[kQ], whole;

  SsdReach(const float* decay, int64_t rows) {
    float p = 1;
    for (int64_t t = 0; t < rows; ++t) since[t] = p *= decay[t];
    whole = p;
    p = 1;
    for (int64_t t = rows - 1; t >= 0; --t) {
      until[t] = p;
      p *= decay[t];
    }
  }
};

// Calls row(t, j, L) for every vector j of columns that row t of the chunk's causal matrix reaches,
// up to the whole block of kBlock columns: L_ts = prod_{s<r<=t} decay_r, 1 on the diagonal, 0
// above.
template <class Row>
inline void ForCausalRows(const float* decay, int64_t rows, Row&& row) {
  Vec L[kQ / kLanes] = {};
  IVec lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  for (int64_t t = 0; t < rows; ++t) {
    const int64_t columns = RoundUp(t + 1, kBlock);
    const Vec d = Splat(decay[t]);
    for (int64_t j = 0; j < columns / kLanes; ++j) {
      const IVec diagonal = ISplat(static_cast<int32_t>(t - j * kLanes));
      L[j] = lane == diagonal ? Splat(1.0f) : L[j] * d;
      row(t, j * kLanes, L[j]);
    }
  }
}

// c[rows,n] = the lower triangle of a[rows,k] b[k,rows], in blocks.
inline void LowerProduct(int64_t rows, int64_t k, const float* a, int64_t lda, const float* b,
                         int64_t ldb, float* c, int64_t ldc) {
  for (int64_t i = 0; i < rows; i += kBlock) {
    const int64_t end = Smaller(i + kBlock, rows);
    TileProduct(end - i, end, k, a + i * lda, lda, 1, b, ldb, c + i * ldc, ldc, Grad::kOverwrite);
  }
}

// c[rows,n] += M b[rows,n] for the lower triangle M, and M^T b.
inline void AddLowerTimes(int64_t rows, int64_t n, const float* M, int64_t ldm, const float* b,
                          int64_t ldb, float* c, int64_t ldc) {
  for (int64_t i = 0; i < rows; i += kBlock) {
    const int64_t end = Smaller(i + kBlock, rows);
    TileProduct(end - i, n, end, M + i * ldm, ldm, 1, b, ldb, c + i * ldc, ldc, Grad::kAccumulate);
  }
}
inline void AddLowerTransposedTimes(int64_t rows, int64_t n, const float* M, int64_t ldm,
                                    const float* b, int64_t ldb, float* c, int64_t ldc) {
  for (int64_t i = 0; i < rows; i += kBlock) {
    const int64_t m = Smaller(kBlock, rows - i);
    TileProduct(m, n, rows - i, M + i * ldm + i, 1, ldm, b + i * ldb, ldb, c + i * ldc, ldc,
                Grad::kAccumulate);
  }
}

// y[r,:] = factor[r] x[r,:].
template <class P>
void ScaleRows(const P* x, int64_t stride, const float* factor, int64_t rows, int64_t width,
               float* y, int64_t ldy) {
  for (int64_t r = 0; r < rows; ++r)
    ForLanes(width, [&](int64_t i, int n) {
      StorePart(y + r * ldy + i, LoadPart(x + r * stride + i, n) * factor[r], n);
    });
}

}  // namespace
}  // namespace tessera::TESSERA_ISA

#endif  // TESSERA_KERNELS_SCAN_SSD_TILE_H_
