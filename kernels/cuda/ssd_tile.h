#ifndef TESSERA_KERNELS_CUDA_SSD_TILE_H_
#define TESSERA_KERNELS_CUDA_SSD_TILE_H_

#include "core/check.h"
#include "kernels/cuda/block_product.h"
#include "kernels/cuda/functions.h"
#include "kernels/cuda/state_pass.h"
#include "kernels/ssd_scan.h"

// What both directions of the SSD scan share. All chunks are worked on at once, by a block each:
// what each adds to the state, then one pass from chunk to chunk over the states alone, then the
// rest.

namespace tessera::TESSERA_DEVICE {
namespace {

constexpr int kQ = 64;
static_assert(kQ == SsdScanArgs<float>::kChunk);
constexpr int kMaxSsdHead = 128;

// Of each token of a chunk for one head: the step size, how fast it grows with the raw one, the
// decay of the state (0 where a document starts); and products of decays: since[t] over the chunk's
// start to t, until[t] from t + 1 to its end.
struct SsdSteps {
  float dt[kQ], slope[kQ], decay[kQ], since[kQ], until[kQ], whole;
};

// Read by all threads, between two barriers. Tokens past the end of the sequence neither decay nor
// add.
template <class T>
__device__ __forceinline__ void ReadSteps(const SsdScanArgs<T>& a, int64_t b, int64_t h, int64_t t0,
                                          SsdSteps& steps) {
  const int t = static_cast<int>(threadIdx.x);
  __syncthreads();  // whoever reads the head before is done
  if (t < kQ) {
    steps.dt[t] = steps.slope[t] = 0;
    steps.decay[t] = 1;
    if (t0 + t < a.T) {
      const int64_t row = b * a.T + t0 + t;
      const float raw = ToFloat(a.dt[row * a.dt_stride + h]) + a.dt_bias[h];
      const bool starts = a.position != nullptr && a.position[row] == 0;
      steps.dt[t] = Softplus(raw);
      steps.slope[t] = Sigmoid(raw);
      steps.decay[t] = starts ? 0 : expf(-expf(a.A_log[h]) * steps.dt[t]);
    }
  }
  __syncthreads();
  if (t == 0) {
    float p = 1;
    for (int i = 0; i < kQ; ++i) steps.since[i] = p *= steps.decay[i];
    steps.whole = p;
  }
  if (t == 32) {
    float p = 1;
    for (int i = kQ - 1; i >= 0; --i) {
      steps.until[i] = p;
      p *= steps.decay[i];
    }
  }
  __syncthreads();
}

// L[t, s] = the product of the decays of s < r <= t, 1 on the diagonal, 0 above: a thread a column.
__device__ __forceinline__ void FillDecays(const SsdSteps& steps, const Tile& L) {
  const int s = static_cast<int>(threadIdx.x);
  if (s >= kQ) return;
  float p = 0;
  for (int t = 0; t < kQ; ++t) {
    p = t == s ? 1 : p * steps.decay[t];
    L(t, s) = p;
  }
}

template <class T>
__device__ __forceinline__ int64_t RowsOf(const SsdScanArgs<T>& a, int64_t t0) {
  return a.T - t0 < kQ ? a.T - t0 : kQ;
}

// Block (c, h, b): what chunk c of head h adds to the state at its end,
//   sum_t until_t dt_t B_t x_t^T,
// or, backward, what its outputs add to the gradient of the state at its start,
//   sum_t since_t C_t dy_t^T.
// Also the chunk's whole decay. `rows` are x or dy.
template <Pass kPass, class T>
__global__ void __launch_bounds__(kScanThreads)
    SsdChunkState(SsdScanArgs<T> a, const T* rows, int64_t rows_stride, StateArray states,
                  float* whole) {
  TESSERA_SHARED(SsdSteps, steps);
  TESSERA_DYNAMIC_SHARED(float, shared);
  const int64_t c = blockIdx.x, h = blockIdx.y, b = blockIdx.z, t0 = c * kQ;
  const int64_t count = RowsOf(a, t0), row = b * a.T + t0, g = h / (a.H / a.G);
  float* out = StateAt(states, b, c, h, a.H, a.N * a.P);
  ReadSteps(a, b, h, t0, steps);
  if (threadIdx.x == 0) whole[(b * gridDim.x + c) * a.H + h] = steps.whole;
  if (out == nullptr) return;
  const Tile keys = TakeTile(shared, kQ, a.N), values = TakeTile(shared, kQ, a.P);
  const T* of = kPass == Pass::kForward ? a.b : a.c;
  const int64_t stride = kPass == Pass::kForward ? a.b_stride : a.c_stride;
  FillTile<kQ>(keys, count, a.N, [&](int t, int n) {
    const float w = kPass == Pass::kForward ? steps.until[t] * steps.dt[t] : steps.since[t];
    return w * ToFloat(of[(row + t) * stride + g * a.N + n]);
  });
  FillTile<kQ>(values, rows == nullptr ? 0 : count, a.P,
               [&](int t, int p) { return ToFloat(rows[(row + t) * rows_stride + h * a.P + p]); });
  __syncthreads();
  for (int n0 = 0; n0 < a.N; n0 += 64)
    for (int p0 = 0; p0 < a.P; p0 += 64) {
      float sum[4][4] = {};
      AddProduct<T, Square>(
          kQ, [&](int n, int t) { return keys(t, n0 + n); },
          [&](int t, int p) { return values(t, p0 + p); }, sum);
      ForOwned<Square>(sum, [&](int n, int p, float v) {
        if (n0 + n < a.N && p0 + p < a.P) out[(n0 + n) * a.P + p0 + p] = v;
      });
    }
}

template <class T>
void CheckSizes(const SsdScanArgs<T>& a) {
  TESSERA_CHECK(a.CudaLimit().empty(), "%s", a.CudaLimit().c_str());
}

// The two launches that leave the states in `states`.
template <Pass kPass, class T>
void LaunchStates(const SsdScanArgs<T>& a, const T* rows, int64_t stride, const StateArray& states,
                  float* whole, const float* from, float* to, Grad mode) {
  const dim3 grid{static_cast<unsigned>(a.chunks()), static_cast<unsigned>(a.H),
                  static_cast<unsigned>(a.B)};
  Launch(SsdChunkState<kPass, T>, grid, dim3{kScanThreads}, TileBytes(kQ, a.N) + TileBytes(kQ, a.P),
         a, rows, stride, states, whole);
  PassStates(kPass, states, whole, a.B, a.chunks(), a.H, 1, a.N * a.P, from, to, mode);
}

}  // namespace
}  // namespace tessera::TESSERA_DEVICE

#endif  // TESSERA_KERNELS_CUDA_SSD_TILE_H_
