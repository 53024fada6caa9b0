#include "kernels/cuda/ssd_tile.h"

// Names as in kernels/ssd_scan_grad.cc: U = dt o x, M = C B^T o L, S the state at a chunk's start
// and dS the gradient of the one at its end.

namespace tessera::TESSERA_DEVICE {
namespace {

// Sums over the chunk's rows that the step sizes' gradients are made of.
// A row's columns are in two halves, by warps that meet here.
struct RowSums {
  float dt[2][kQ];          // <x, dU>
  float to_end[2][kQ];      // from the pairs that leave the chunk
  float from_start[2][kQ];  // from the pairs that enter it
  float skip[2][kQ];        // <x, dy>
  float decay[kQ];          // from the pairs within it
};
// Adds up a thread's two rows over the four lanes that have them.
__device__ __forceinline__ void PutRowSum(float (&sums)[2][kQ], const float (&part)[2]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float all = RowSum(part[r]);
    if (threadIdx.x % 4 == 0) sums[Square::Half()][Square::Row(2 * r)] = all;
  }
}

// Block (c, g, b): the gradients of chunk c of group g, head after head, since the heads share B
// and C, whose gradients stay in registers. kN: state columns of a thread.
template <int kN, class T>
__global__ void __launch_bounds__(kScanThreads)
    SsdGradKernel(SsdScanGradArgs<T> g, StateArray dstates, float* head_sums) {
  const SsdScanArgs<T>& a = g.forward;
  TESSERA_SHARED(SsdSteps, steps);
  TESSERA_SHARED(RowSums, sums);
  TESSERA_DYNAMIC_SHARED(float, shared);
  const int64_t c = blockIdx.x, group = blockIdx.y, b = blockIdx.z, t0 = c * kQ;
  const int64_t count = RowsOf(a, t0), row = b * a.T + t0, size = a.N * a.P;
  const Tile C = TakeTile(shared, kQ, a.N), B = TakeTile(shared, kQ, a.N);
  const Tile x = TakeTile(shared, kQ, a.P), dy = TakeTile(shared, kQ, a.P);
  const Tile CB = TakeTile(shared, kQ, kQ), M = TakeTile(shared, kQ, kQ);
  // L and the pairs' products, later the states in turn.
  const Tile pairs{shared, TilePitch(kQ)}, S{shared, TilePitch(a.P)};
  FillTile<kQ>(C, count, a.N, [&](int t, int n) {
    return ToFloat(a.c[(row + t) * a.c_stride + group * a.N + n]);
  });
  FillTile<kQ>(B, count, a.N, [&](int t, int n) {
    return ToFloat(a.b[(row + t) * a.b_stride + group * a.N + n]);
  });
  __syncthreads();
  {
    float v[4][4] = {};
    AddProduct<T, Square>(
        Padded(a.N), [&](int t, int n) { return C(t, n); }, [&](int n, int s) { return B(s, n); },
        v);
    ForOwned<Square>(v, [&](int t, int s, float& p) { CB(t, s) = p; });
  }
  float dCB[4][4] = {}, dB[kN][4] = {}, dC[kN][4] = {};
  for (int64_t h = group * (a.H / a.G); h < (group + 1) * (a.H / a.G); ++h) {
    ReadSteps(a, b, h, t0, steps);  // with the barrier before anything is overwritten
    FillTile<kQ>(x, count, a.P,
                 [&](int t, int p) { return ToFloat(a.x[(row + t) * a.x_stride + h * a.P + p]); });
    FillTile<kQ>(dy, g.dy == nullptr ? 0 : count, a.P, [&](int t, int p) {
      return ToFloat(g.dy[(row + t) * g.dy_stride + h * a.P + p]);
    });
    FillDecays(steps, pairs);
    __syncthreads();
    // M, the gradient of C B^T, and what each pair owes to the decays between its two.
    float dM[4][4] = {};
    AddProduct<T, Square>(
        Padded(a.P), [&](int t, int p) { return dy(t, p); }, [&](int p, int s) { return x(s, p); },
        dM);
#pragma unroll
    for (int n = 0; n < 4; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int t = Square::Row(e), s = Square::Column(n, e);
        const float L = pairs(t, s), m = CB(t, s) * L, d = s <= t ? dM[n][e] * steps.dt[s] : 0;
        M(t, s) = m;
        dCB[n][e] += d * L;
        pairs(t, s) = s < t ? d * m : 0;
      }
    __syncthreads();
    // Row r becomes the sums of its rows and those below: what s owes to all t >= r. Then what r
    // decays are the columns before r.
    const int thread = static_cast<int>(threadIdx.x);
    if (thread < kQ) {
      float below = 0;
      for (int r = kQ - 1; r >= 0; --r) pairs(r, thread) = below += pairs(r, thread);
    }
    __syncthreads();
    if (thread < kQ) {
      float sum = 0;
      for (int s = 0; s < thread; ++s) sum += pairs(thread, s);
      sums.decay[thread] = sum;
    }
    __syncthreads();
    FillState(S, a.N, a.P, StateAt(dstates, b, c, h, a.H, size));
    __syncthreads();
    // dU = M^T dy + until o (B dS), and dB += until o (U dS^T).
    float to_dt[2] = {}, to_end[2] = {}, skip[2] = {};  // of this thread's rows
    const float D = a.D == nullptr ? 0 : a.D[h];
    for (int p0 = 0; p0 < a.P; p0 += 64) {
      float v[4][4] = {};
      AddProduct<T, Square>(
          Padded(a.N), [&](int t, int n) { return B(t, n); },
          [&](int n, int p) { return S(n, p0 + p); }, v);
#pragma unroll
      for (int n = 0; n < 4; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int t = Square::Row(e);
          v[n][e] *= steps.until[t];
          to_end[e / 2] += v[n][e] * steps.dt[t] * x(t, p0 + Square::Column(n, e));
        }
      AddProduct<T, Square>(
          kQ, [&](int t, int s) { return M(s, t); }, [&](int s, int p) { return dy(s, p0 + p); },
          v);
#pragma unroll
      for (int n = 0; n < 4; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int t = Square::Row(e), p = p0 + Square::Column(n, e);
          to_dt[e / 2] += v[n][e] * x(t, p);
          skip[e / 2] += dy(t, p) * x(t, p);
          if (g.dx != nullptr && t < count && p < a.P)
            PutGrad(g.dx + (row + t) * g.dx_stride + h * a.P + p,
                    v[n][e] * steps.dt[t] + D * dy(t, p), g.dx_mode);
        }
    }
    float v[kN][4] = {};
    AddProduct<T, Square>(
        Padded(a.P), [&](int t, int p) { return x(t, p); }, [&](int p, int n) { return S(n, p); },
        v);
#pragma unroll
    for (int n = 0; n < kN; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int t = Square::Row(e);
        dB[n][e] += steps.until[t] * steps.dt[t] * v[n][e];
        v[n][e] = 0;
      }
    // dC += since o (dy S^T), and what the state that passes the chunk by owes to its decays.
    const float* start = c > 0 ? a.chunk_states + ((b * (a.chunks() - 1) + c - 1) * a.H + h) * size
                         : a.state != nullptr ? a.state + (b * a.H + h) * size
                                              : nullptr;
    float over = 0, from_start[2] = {};
    if (start != nullptr) {  // the whole block
      for (int64_t i = thread; i < size; i += kScanThreads) over += start[i] * S(i / a.P, i % a.P);
      __syncthreads();
      FillState(S, a.N, a.P, start);
      __syncthreads();
      AddProduct<T, Square>(
          Padded(a.P), [&](int t, int p) { return dy(t, p); },
          [&](int p, int n) { return S(n, p); }, v);
#pragma unroll
      for (int n = 0; n < kN; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int t = Square::Row(e);
          v[n][e] *= steps.since[t];
          dC[n][e] += v[n][e];
          from_start[e / 2] += v[n][e] * C(t, Square::Column(n, e));
        }
    }
    over = BlockSum<kScanThreads>(over) * steps.whole;
    PutRowSum(sums.dt, to_dt);
    PutRowSum(sums.to_end, to_end);
    PutRowSum(sums.from_start, from_start);
    PutRowSum(sums.skip, skip);
    __syncthreads();
    if (thread != 0) continue;
    // One thread adds up along the chunk: pairs that enter, leave and pass by.
    double entering = 0, leaving = over, A_log = 0, dt_bias = 0, of_D = 0;
    for (int t = kQ - 1; t >= 0; --t)
      sums.decay[t] += entering += sums.from_start[0][t] + sums.from_start[1][t];
    const float rate = expf(a.A_log[h]);
    for (int t = 0; t < count; ++t) {
      const double da = sums.decay[t] + leaving;
      leaving += sums.to_end[0][t] + sums.to_end[1][t];
      const double raw = (sums.dt[0][t] + sums.dt[1][t] - rate * da) * steps.slope[t];
      A_log -= rate * steps.dt[t] * da;
      dt_bias += raw;
      of_D += sums.skip[0][t] + sums.skip[1][t];
      if (g.ddt != nullptr)
        PutGrad(g.ddt + (row + t) * g.ddt_stride + h, static_cast<float>(raw), g.ddt_mode);
    }
    float* out = head_sums + (b * gridDim.x + c) * 3 * a.H + h;
    out[0] = static_cast<float>(A_log);
    out[a.H] = static_cast<float>(dt_bias);
    out[2 * a.H] = static_cast<float>(of_D);
  }
  // The triangle of C B^T, summed over heads, reaches B and C.
  __syncthreads();
  ForOwned<Square>(dCB, [&](int t, int s, float v) { M(t, s) = v; });
  __syncthreads();
  AddProduct<T, Square>(
      kQ, [&](int t, int s) { return M(t, s); }, [&](int s, int n) { return B(s, n); }, dC);
  AddProduct<T, Square>(
      kQ, [&](int t, int s) { return M(s, t); }, [&](int s, int n) { return C(s, n); }, dB);
  ForOwned<Square>(dB, [&](int t, int n, float v) {
    if (g.db != nullptr && t < count && n < a.N)
      PutGrad(g.db + (row + t) * g.db_stride + group * a.N + n, v, g.db_mode);
  });
  ForOwned<Square>(dC, [&](int t, int n, float v) {
    if (g.dc != nullptr && t < count && n < a.N)
      PutGrad(g.dc + (row + t) * g.dc_stride + group * a.N + n, v, g.dc_mode);
  });
}

template <class T>
void SsdScanGrad(const SsdScanGradArgs<T>& g) {
  const SsdScanArgs<T>& a = g.forward;
  CheckSizes(a);
  if (a.B * a.T * a.H == 0) return;
  const int64_t parts = a.B * a.chunks();
  float* whole = ScratchFloats(g.CudaScratch());
  float *head_sums = whole + parts * a.H, *states = head_sums + 3 * parts * a.H;
  const StateArray dstates{states, a.chunks(), nullptr};
  LaunchStates<Pass::kBackward>(a, g.dy, g.dy_stride, dstates, whole, g.dlast_state, g.dstate,
                                g.dstate_mode);
  const size_t state_bytes = TileBytes(Padded(a.N), a.P), pair_bytes = TileBytes(kQ, kQ);
  const size_t bytes = 2 * TileBytes(kQ, a.N) + 2 * TileBytes(kQ, a.P) + 2 * pair_bytes +
                       (state_bytes > pair_bytes ? state_bytes : pair_bytes);
  Launch(a.N <= 64 ? SsdGradKernel<4, T> : SsdGradKernel<8, T>,
         dim3{static_cast<unsigned>(a.chunks()), static_cast<unsigned>(a.G),
              static_cast<unsigned>(a.B)},
         dim3{kScanThreads}, bytes, g, dstates, head_sums);
  const auto sum = [&](int64_t which, float* to, Grad mode) {
    if (to != nullptr) LaunchSumParts(head_sums + which * a.H, parts, 3 * a.H, a.H, to, mode);
  };
  sum(0, g.dA_log, g.dA_log_mode);
  sum(1, g.ddt_bias, g.ddt_bias_mode);
  sum(2, g.dD, g.dD_mode);
}

}  // namespace

TESSERA_DEVICE_KERNEL(SsdScanGrad)

}  // namespace tessera::TESSERA_DEVICE
