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
                  span > 0                  ? StateAt(states, b, span - 1, h, a.H, size)
                  : a.state.data != nullptr ? a.state.data + (b * a.H + h) * size
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
        return t < a.T ? a.o.data + (b * a.T + t) * a.o.stride + h * a.V + column : nullptr;
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
  const bool starts = a.start.data != nullptr && a.start.data[b] == 0;
  const float value = v < a.V ? ToFloat(a.v.data[b * a.v.stride + h * a.V + v]) : 0;
  float o = 0;
#pragma unroll 8
  for (int64_t k = threadIdx.y; k < a.K; k += kStepRows) {
    if (v >= a.V) continue;
    float s = value * ToFloat(a.k.data[b * a.k.stride + h * a.K + k]);
    if (a.state.data != nullptr && !starts)
      s += expf(ToFloat(a.g.data[b * a.g.stride + h * a.K + k])) * a.state.data[head + k * a.V + v];
    if (a.last_state.data != nullptr) a.last_state.data[head + k * a.V + v] = s;
    o += s * ToFloat(a.q.data[b * a.q.stride + h * a.K + k]);
  }
  part[threadIdx.y][v] = o;
  __syncthreads();
  if (threadIdx.y > 0 || v >= a.V) return;
  o = 0;
  for (const auto& row : part) o += row[v];
  a.o.data[b * a.o.stride + h * a.V + v] = FromFloat<T>(a.scale * o);
}

template <class T>
void GlaScan(const GlaScanArgs<T>& a) {
  if (a.B * a.T * a.H == 0) return;
  if (a.T == 1)
    return Launch(GlaStep<T>, FoldedGrid(a.H, a.B, 1), dim3{kMaxGlaWidth, kStepRows}, 0, a);
  const int64_t size = a.K * a.V;
  const bool keep = a.kept.data != nullptr;
  // States first, so that they are aligned.
  const Scratch scratch(a.CudaScratch());
  float* const last = scratch.floats();
  float *const between = last + a.B * a.H * size, *const whole = between + a.kept_floats();
  const StateArray states = Dense(keep ? a.kept.data : between, a.spans() - 1,
                                  a.last_state.data == nullptr ? nullptr : last);
  const bool aligned = AlignedRows(a) && Aligned(a.o.data, a.o.stride);
  ByHeadSize(a, [&](auto type) {
    using Tile = typename decltype(type)::type;
    static_assert(sizeof(Tile) <= kSharedBytes);
    LaunchStates<Pass::kForward, Tile, T>(a, nullptr, 0, aligned, states, whole, a.state.data,
                                          a.last_state.data, Grad::kOverwrite);
    Launch(GlaSpanOut<Tile, T>, FoldedGrid(a.spans(), a.H, a.B), dim3{kGlaThreads}, sizeof(Tile), a,
           states, aligned);
  });
}

}  // namespace

TESSERA_DEVICE_KERNEL(GlaScan)

}  // namespace tessera::TESSERA_DEVICE
