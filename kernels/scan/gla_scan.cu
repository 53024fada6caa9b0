#include "kernels/scan/gla_scan.h"
#include "kernels/scan/gla_tile.cuh"

namespace tessera::TESSERA_DEVICE {
namespace {

// Block (span, h, b): o = (q o since) S + A v, chunk after chunk of a span, whose first state is
// known. Of the outputs a warp has 16 columns.
template <class Tile, class T>
__global__ void __launch_bounds__(kGlaThreads)
    GlaSpanOut(GlaScanArgs<T> a, StateArray states, bool aligned) {
  using F = Fragments<T>;
  constexpr int kPitchV = Tile::kPitchV;
  TESSERA_DYNAMIC_SHARED(Tile, tile);
  const GridPlace place = PlaceInGrid(a.spans(), a.H);
  const int64_t span = place.x, h = place.y, b = place.z;
  const int64_t size = a.K * a.V;
  const int column = static_cast<int>(threadIdx.x) / 32 * 16;
  typename Tile::State s;
  LoadState<Tile>(s, a.K, a.V,
                  span > 0             ? StateAt(states, b, span - 1, h, a.H, size)
                  : a.state != nullptr ? a.state + (b * a.H + h) * size
                                       : nullptr);
  const int64_t chunks = ChunksOf(a, span);
  for (int64_t n = 0; n < chunks; ++n) {
    const int64_t t0 = span * kSpan + n * kC;
    FillChunk<Side::kBoth>(a, b, h, t0, aligned, *tile);
    StoreState(s, *tile);
    PairScores(*tile, a.scale);
    __syncthreads();
    if (column < Tile::kV) {
      float o[1][2][4] = {};
      F::template StoredRows<Tile::kK, 16, kPitchV>(tile->q_since, tile->state + column, o);
      F::template StoredRows<kC, 16, kPitchV>(tile->pairs, tile->v + column, o);
      PutPairs<T>(o, a.V - column, aligned, Grad::kOverwrite, [&](int r) -> T* {
        const int64_t t = t0 + FragmentRow(r);
        return t < a.T ? a.o + (b * a.T + t) * a.o_stride + h * a.V + column : nullptr;
      });
    }
    if (n + 1 < chunks) Advance(*tile, tile->k_until, tile->v, s);
  }
}

// Block b H + h: one token, as in decoding. Thread (v, i) has column v of the state in every
// kStepRows-th row, which is read and written once, the floor; neighbours have neighbouring
// columns.
constexpr int kStepRows = 4;
template <class T>
__global__ void __launch_bounds__(kMaxGlaWidth* kStepRows) GlaStep(GlaScanArgs<T> a) {
  TESSERA_SHARED(float[kStepRows][kMaxGlaWidth], part);
  const int64_t head = int64_t{blockIdx.x} * a.K * a.V, v = threadIdx.x;
  const int64_t b = blockIdx.x / a.H, h = blockIdx.x % a.H;
  const bool starts = a.start != nullptr && a.start[b] == 0;
  const float value = v < a.V ? ToFloat(a.v[b * a.v_stride + h * a.V + v]) : 0;
  float o = 0;
#pragma unroll 8
  for (int64_t k = threadIdx.y; k < a.K; k += kStepRows) {
    if (v >= a.V) continue;
    float s = value * ToFloat(a.k[b * a.k_stride + h * a.K + k]);
    if (a.state != nullptr && !starts)
      s += expf(ToFloat(a.g[b * a.g_stride + h * a.K + k])) * a.state[head + k * a.V + v];
    if (a.last_state != nullptr) a.last_state[head + k * a.V + v] = s;
    o += s * ToFloat(a.q[b * a.q_stride + h * a.K + k]);
  }
  part[threadIdx.y][v] = o;
  __syncthreads();
  if (threadIdx.y > 0 || v >= a.V) return;
  o = 0;
  for (const auto& row : part) o += row[v];
  a.o[b * a.o_stride + h * a.V + v] = FromFloat<T>(a.scale * o);
}

template <class T>
void GlaScan(const GlaScanArgs<T>& a) {
  if (a.B * a.T * a.H == 0) return;
  if (a.T == 1)
    return Launch(GlaStep<T>, FoldedGrid(a.H, a.B, 1), dim3{kMaxGlaWidth, kStepRows}, 0, a);
  const int64_t size = a.K * a.V;
  const bool keep = a.kept != nullptr;
  // States first, so that they are aligned.
  const Scratch scratch(a.CudaScratch());
  float* const last = scratch.floats();
  float *const between = last + a.B * a.H * size, *const whole = between + a.kept_floats();
  const StateArray states =
      Dense(keep ? a.kept : between, a.spans() - 1, a.last_state == nullptr ? nullptr : last);
  const bool aligned = AlignedRows(a) && Aligned(a.o, a.o_stride);
  ByHeadSize(a, [&](auto type) {
    using Tile = typename decltype(type)::type;
    static_assert(sizeof(Tile) <= kSharedBytes);
    LaunchStates<Pass::kForward, Tile, T>(a, nullptr, 0, aligned, states, whole, a.state,
                                          a.last_state, Grad::kOverwrite);
    Launch(GlaSpanOut<Tile, T>, FoldedGrid(a.spans(), a.H, a.B), dim3{kGlaThreads}, sizeof(Tile), a,
           states, aligned);
  });
}

}  // namespace

TESSERA_DEVICE_KERNEL(GlaScan)

}  // namespace tessera::TESSERA_DEVICE
