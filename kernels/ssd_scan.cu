#include "kernels/cuda/ssd_tile.h"
#include "kernels/ssd_scan.h"

namespace tessera::TESSERA_DEVICE {
namespace {

// Block (c, h, b): the outputs of chunk c of head h, ((C B^T) o L) U + since o (C S) + D x, with U
// = dt o x and S the state at the chunk's start.
template <class T>
__global__ void __launch_bounds__(kScanThreads) SsdChunkOut(SsdScanArgs<T> a, StateArray states) {
  TESSERA_SHARED(SsdSteps, steps);
  TESSERA_DYNAMIC_SHARED(float, shared);
  const int64_t c = blockIdx.x, h = blockIdx.y, b = blockIdx.z, t0 = c * kQ;
  const int64_t count = RowsOf(a, t0), row = b * a.T + t0, g = h / (a.H / a.G);
  const Tile C = TakeTile(shared, kQ, a.N), B = TakeTile(shared, kQ, a.N);
  const Tile x = TakeTile(shared, kQ, a.P), M = TakeTile(shared, kQ, kQ);
  const Tile S = TakeTile(shared, Padded(a.N), a.P);
  const float* start = c > 0                ? StateAt(states, b, c - 1, h, a.H, a.N * a.P)
                       : a.state != nullptr ? a.state + (b * a.H + h) * a.N * a.P
                                            : nullptr;
  ReadSteps(a, b, h, t0, steps);
  FillTile<kQ>(C, count, a.N,
               [&](int t, int n) { return ToFloat(a.c[(row + t) * a.c_stride + g * a.N + n]); });
  FillTile<kQ>(B, count, a.N,
               [&](int t, int n) { return ToFloat(a.b[(row + t) * a.b_stride + g * a.N + n]); });
  FillTile<kQ>(x, count, a.P,
               [&](int t, int p) { return ToFloat(a.x[(row + t) * a.x_stride + h * a.P + p]); });
  FillState(S, a.N, a.P, start);
  FillDecays(steps, M);
  __syncthreads();
  float pairs[4][4] = {};
  AddProduct<T, Square>(
      Padded(a.N), [&](int t, int n) { return C(t, n); }, [&](int n, int s) { return B(s, n); },
      pairs);
  ForOwned<Square>(pairs, [&](int t, int s, float v) { M(t, s) *= v * steps.dt[s]; });
  __syncthreads();
  const float D = a.D == nullptr ? 0 : a.D[h];
  for (int p0 = 0; p0 < a.P; p0 += 64) {
    float y[4][4] = {};
    AddProduct<T, Square>(
        Padded(a.N), [&](int t, int n) { return C(t, n); },
        [&](int n, int p) { return S(n, p0 + p); }, y);
    ForOwned<Square>(y, [&](int t, int, float& v) { v *= steps.since[t]; });
    AddProduct<T, Square>(
        kQ, [&](int t, int s) { return M(t, s); }, [&](int s, int p) { return x(s, p0 + p); }, y);
    ForOwned<Square>(y, [&](int t, int p, float v) {
      if (t < count && p0 + p < a.P)
        a.y[(row + t) * a.y_stride + h * a.P + p0 + p] = FromFloat<T>(v + D * x(t, p0 + p));
    });
  }
}

// Block (h, b): one token, as in decoding. Thread p has column p of the state, which is read and
// written once, the floor; neighbours have neighbouring columns.
template <class T>
__global__ void __launch_bounds__(kMaxSsdHead) SsdStep(SsdScanArgs<T> a) {
  const int64_t h = blockIdx.x, b = blockIdx.y, p = threadIdx.x, g = h / (a.H / a.G);
  if (p >= a.P) return;
  const float raw = ToFloat(a.dt[b * a.dt_stride + h]) + a.dt_bias[h], dt = Softplus(raw);
  const bool starts = a.position != nullptr && a.position[b] == 0;
  const float decay = starts ? 0 : expf(-expf(a.A_log[h]) * dt);
  const float x = ToFloat(a.x[b * a.x_stride + h * a.P + p]);
  const int64_t head = (b * a.H + h) * a.N * a.P;
  float y = a.D == nullptr ? 0 : a.D[h] * x;
  for (int64_t n = 0; n < a.N; ++n) {
    float s = dt * x * ToFloat(a.b[b * a.b_stride + g * a.N + n]);
    if (a.state != nullptr) s += decay * a.state[head + n * a.P + p];
    if (a.last_state != nullptr) a.last_state[head + n * a.P + p] = s;
    y += s * ToFloat(a.c[b * a.c_stride + g * a.N + n]);
  }
  a.y[b * a.y_stride + h * a.P + p] = FromFloat<T>(y);
}

template <class T>
void SsdScan(const SsdScanArgs<T>& a) {
  CheckSizes(a);
  if (a.B * a.T * a.H == 0) return;
  const auto H = static_cast<unsigned>(a.H), B = static_cast<unsigned>(a.B);
  if (a.T == 1) return Launch(SsdStep<T>, dim3{H, B}, dim3{kMaxSsdHead}, 0, a);
  const int64_t heads = a.B * a.H, size = a.N * a.P;
  const bool keep = a.chunk_states != nullptr;
  float* scratch = ScratchFloats(a.CudaScratch());
  float *whole = scratch, *last = whole + a.B * a.chunks() * a.H;
  const StateArray states{keep ? a.chunk_states : last + heads * size, a.chunks() - 1,
                          a.last_state == nullptr ? nullptr : last};
  LaunchStates<Pass::kForward>(a, a.x, a.x_stride, states, whole, a.state, a.last_state,
                               Grad::kOverwrite);
  const size_t bytes =
      2 * TileBytes(kQ, a.N) + TileBytes(kQ, a.P) + TileBytes(kQ, kQ) + TileBytes(Padded(a.N), a.P);
  Launch(SsdChunkOut<T>, dim3{static_cast<unsigned>(a.chunks()), H, B}, dim3{kScanThreads}, bytes,
         a, states);
}

}  // namespace

TESSERA_DEVICE_KERNEL(SsdScan)

}  // namespace tessera::TESSERA_DEVICE
