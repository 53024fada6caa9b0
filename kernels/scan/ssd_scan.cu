#include "kernels/scan/ssd_scan.h"
#include "kernels/scan/ssd_tile.cuh"

namespace tessera::TESSERA_DEVICE {
namespace {

// Block (u, h, b): the outputs of a span of head h, ((C B^T) o L) U + since o (C S) + D x, with
// U = dt o x and S the state at a chunk's start. `keep`: writes S for the backward pass.
template <class Tile, class T>
__global__ void __launch_bounds__(kSsdThreads)
    SsdSpanOut(SsdScanArgs<T> a, StateArray states, bool keep, bool aligned) {
  using F = Fragments<T>;
  constexpr int kN = Tile::kN, kP = Tile::kP, kPitchN = Tile::kPitchN, kPitchP = Tile::kPitchP;
  TESSERA_DYNAMIC_SHARED(Tile, tile);
  const SsdSteps& steps = tile->steps;
  const GridPlace place = PlaceInGrid(a.cuda_spans(), a.H);
  const int64_t u = place.x, h = place.y, b = place.z;
  const int64_t g = h / (a.H / a.G), size = a.N * a.P, first = u * a.kCudaSpan;
  const int64_t end = first + a.kCudaSpan < a.chunks() ? first + a.kCudaSpan : a.chunks();
  const int warp = static_cast<int>(threadIdx.x) / 32, row0 = 16 * warp;
  const float D = a.D.data == nullptr ? 0 : a.D.data[h];
  const float* const start = u > 0                     ? StateAt(states, b, u - 1, h, a.H, size)
                             : a.state.data != nullptr ? a.state.data + (b * a.H + h) * size
                                                       : nullptr;
  float s[Tile::kM][kP / 8][4];
  LoadState<Tile>(s, a.N, a.P, start);
  for (int64_t n = first; n < end; ++n) {
    const int64_t t0 = n * kQ, count = RowsOf(a, t0), row = b * a.T + t0;
    __syncthreads();  // the tiles before are read
    StartRows<kN>(tile->queries, a.c.data + row * a.c.stride + g * a.N, a.c.stride, count, a.N,
                  aligned);
    StartRows<kN>(tile->keys, a.b.data + row * a.b.stride + g * a.N, a.b.stride, count, a.N,
                  aligned);
    StartRows<kP>(tile->rows, a.x.data + row * a.x.stride + h * a.P, a.x.stride, count, a.P,
                  aligned);
    cp_async_commit();
    StoreFragment<kPitchP>(s, tile->state + Tile::StateRow() * kPitchP);
    if (keep && n > first)
      SaveState<Tile>(s, a.N, a.P,
                      a.chunk_states.data + ((b * (a.chunks() - 1) + n - 1) * a.H + h) * size);
    ReadSteps(a, b, h, t0, tile->steps);
    cp_async_wait<0>();
    __syncthreads();
    float y[1][kP / 8][4] = {}, pairs[1][kQ / 8][4] = {};
    F::template StoredRows<kN, kP, kPitchP>(tile->queries + row0 * kPitchN, tile->state, y);
    ForFragment(y, [&](int r, int, float& x) { x *= steps.since[row0 + FragmentRow(r)]; });
    F::template Dots<kQ, kN>(tile->queries + row0 * kPitchN, tile->keys, pairs);
    ForPairDecays<kQ / 8>(steps, row0, 0, [&](int i, int e, int, int j, float L, auto) {
      pairs[0][i][e] *= L * steps.dt[j];
    });
    F::template Rows<kQ, kP, kPitchP>(pairs, tile->rows, tile->scratch[warp], y);
    ForFragment(y, [&](int r, int p, float& x) {
      const int t = row0 + FragmentRow(r);
      x += D * ToFloat(tile->rows[t * kPitchP + p]);
    });
    PutPairs<T>(y, a.P, aligned, Grad::kOverwrite, [&](int r) -> T* {
      const int t = row0 + FragmentRow(r);
      return t < count ? a.y.data + (row + t) * a.y.stride + h * a.P : nullptr;
    });
    if (n + 1 < end)
      Advance<Tile>(
          tile->keys, *tile, [&](int t) { return steps.until[t] * steps.dt[t]; }, s);
  }
}

// Block b H + h: one token, as in decoding. Thread (p, i) has column p of the state in every
// kStepRows-th row, which is read and written once, the floor; neighbours have neighbouring
// columns.
constexpr int kStepRows = 4;
template <class T>
__global__ void __launch_bounds__(kMaxSsdHead* kStepRows) SsdStep(SsdScanArgs<T> a) {
  TESSERA_SHARED(float[kStepRows][kMaxSsdHead], part);
  const int64_t h = blockIdx.x % a.H, b = blockIdx.x / a.H, p = threadIdx.x, g = h / (a.H / a.G);
  const float raw = ToFloat(a.dt.data[b * a.dt.stride + h]) + a.dt_bias.data[h], dt = Softplus(raw);
  const bool starts = a.start.data != nullptr && a.start.data[b] == 0;
  const float decay = starts ? 0 : expf(-expf(a.A_log.data[h]) * dt);
  const float x = p < a.P ? ToFloat(a.x.data[b * a.x.stride + h * a.P + p]) : 0;
  const int64_t head = (b * a.H + h) * a.N * a.P;
  float y = 0;
#pragma unroll 8
  for (int64_t n = threadIdx.y; n < a.N; n += kStepRows) {
    if (p >= a.P) continue;
    float s = dt * x * ToFloat(a.b.data[b * a.b.stride + g * a.N + n]);
    if (a.state.data != nullptr) s += decay * a.state.data[head + n * a.P + p];
    if (a.last_state.data != nullptr) a.last_state.data[head + n * a.P + p] = s;
    y += s * ToFloat(a.c.data[b * a.c.stride + g * a.N + n]);
  }
  part[threadIdx.y][p] = y;
  __syncthreads();
  if (threadIdx.y > 0 || p >= a.P) return;
  y = a.D.data == nullptr ? 0 : a.D.data[h] * x;
  for (const auto& row : part) y += row[p];
  a.y.data[b * a.y.stride + h * a.P + p] = FromFloat<T>(y);
}

template <class T>
void SsdScan(const SsdScanArgs<T>& a) {
  if (a.B * a.T * a.H == 0) return;
  if (a.T == 1)
    return Launch(SsdStep<T>, FoldedGrid(a.H, a.B, 1), dim3{kMaxSsdHead, kStepRows}, 0, a);
  const int64_t size = a.N * a.P, spans = a.cuda_spans();
  const bool keep = a.chunk_states.data != nullptr;
  // States first, so that they are aligned.
  const Scratch scratch(a.CudaScratch());
  float* const last = scratch.floats();
  float* const between = last + a.B * a.H * size;
  float* const whole = between + a.B * (spans - 1) * a.H * size;
  float* const end = a.last_state.data == nullptr ? nullptr : last;
  const StateArray states =
      keep ? StateArray{a.chunk_states.data, spans - 1, a.chunks() - 1, a.kCudaSpan, end}
           : Dense(between, spans - 1, end);
  ByStateSize(a, [&](auto type) {
    using Tile = typename decltype(type)::type;
    LaunchStates<Pass::kForward, Tile>(a, a.kCudaSpan, a.x.data, a.x.stride, states, whole,
                                       a.state.data, a.last_state.data, Grad::kOverwrite);
    Launch(SsdSpanOut<Tile, T>, FoldedGrid(spans, a.H, a.B), dim3{kSsdThreads}, sizeof(Tile), a,
           states, keep, AlignedRows(a, a.x.data, a.x.stride) && Aligned(a.y.data, a.y.stride));
  });
}

}  // namespace

TESSERA_DEVICE_KERNEL(SsdScan)

}  // namespace tessera::TESSERA_DEVICE
