#ifndef TESSERA_KERNELS_SCAN_SSD_TILE_CUH_
#define TESSERA_KERNELS_SCAN_SSD_TILE_CUH_

#include "core/check.h"
#include "kernels/cuda/fragment.h"
#include "kernels/cuda/functions.h"
#include "kernels/scan/ssd_scan.h"
#include "kernels/scan/state_pass.cuh"

// What both directions of the SSD scan share. A sequence is cut into units of one or several chunks
// of 64 tokens. All units are worked on at once, by a block each: what each adds to the state, then
// one pass from unit to unit over the states alone, then the rest.

namespace tessera::TESSERA_DEVICE {
namespace {

constexpr int kQ = 64, kPart = 16, kParts = kQ / kPart;
static_assert(kQ == SsdScanArgs<float>::kChunk);
constexpr int kMaxSsdHead = 128;

// Of each token of a chunk for one head: the step size, how fast it grows with the raw one, the
// decay of the state (0 where a document starts); and products of decays. They are made by
// multiplying alone, so that they neither overflow nor cancel, and in parts of 16 tokens, so that
// few are made one after another: between tokens of different parts, a product is three.
struct SsdSteps {
  float dt[kQ], slope[kQ], decay[kQ];
  float since[kQ], until[kQ], whole;     // over the chunk's start to t; from t + 1 to its end; all
  float part_since[kQ], part_until[kQ];  // the same over the part of t
  float between[kParts][kParts];         // over whole parts between two
  float within[kQ][kPart + 1];           // [t, s % 16]: over s < r <= t in one part, 0 above
};

enum class PartOrder { kBefore, kSame, kAfter };

// each(n, e, t, s, L, constant of PartOrder) for the elements [n][e] of a fragment of pairs (t, s)
// whose rows t begin at row0 and whose columns s at column0, both at a part: L[t, s] = the product
// of the decays of s < r <= t, 1 on the diagonal, 0 above; and where the part of s stands to that
// of t, which is the same for a warp.
template <int kN, class Each>
__device__ __forceinline__ void ForPairDecays(const SsdSteps& steps, int row0, int column0,
                                              Each each) {
  const int part = row0 / kPart, lane_column = threadIdx.x % 4 * 2;
  const float since[2] = {steps.part_since[row0 + FragmentRow(0)],
                          steps.part_since[row0 + FragmentRow(1)]};
#pragma unroll
  for (int n = 0; n < kN; ++n) {
    const int s0 = column0 + 8 * n, s_part = s0 / kPart;
    const auto elements = [&](auto order, auto decay) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int t = row0 + FragmentRow(e / 2), s = s0 + lane_column + e % 2;
        each(n, e, t, s, decay(e, t, s), order);
      }
    };
    if (s_part > part) {
      elements(std::integral_constant<PartOrder, PartOrder::kAfter>{},
               [](int, int, int) { return 0.0f; });
    } else if (s_part == part) {
      elements(std::integral_constant<PartOrder, PartOrder::kSame>{},
               [&](int, int t, int s) { return steps.within[t][s % kPart]; });
    } else {
      const float over = steps.between[part][s_part];
      elements(std::integral_constant<PartOrder, PartOrder::kBefore>{},
               [&](int e, int, int s) { return since[e / 2] * over * steps.part_until[s]; });
    }
  }
}

// Read by all threads, at least 64, between barriers. Tokens past the end of the sequence neither
// decay nor add.
template <class T>
__device__ __forceinline__ void ReadSteps(const SsdScanArgs<T>& a, int64_t b, int64_t h, int64_t t0,
                                          SsdSteps& steps) {
  const int t = static_cast<int>(threadIdx.x), part = t / kPart * kPart;
  __syncthreads();  // whoever reads the steps before is done
  if (t < kQ) {
    float dt = 0, slope = 0, decay = 1;
    if (t0 + t < a.T) {
      const int64_t row = b * a.T + t0 + t;
      const float raw = ToFloat(a.dt.data[row * a.dt.stride + h]) + a.dt_bias.data[h];
      const bool starts = a.start.data != nullptr && a.start.data[row] == t0 + t;
      dt = Softplus(raw);
      slope = Sigmoid(raw);
      decay = starts ? 0 : expf(-expf(a.A_log.data[h]) * dt);
    }
    steps.dt[t] = dt, steps.slope[t] = slope, steps.decay[t] = decay;
  }
  __syncthreads();
  if (t < kQ) {
    float since = 1, until = 1;
#pragma unroll
    for (int i = 0; i < kPart; ++i) {
      const int r = part + i;
      const float d = steps.decay[r];
      since *= r <= t ? d : 1;
      until *= r > t ? d : 1;
      steps.within[r][t % kPart] = r >= t ? until : 0;
    }
    steps.part_since[t] = since, steps.part_until[t] = until;
  }
  __syncthreads();
  const auto part_decay = [&](int p) { return steps.part_since[p * kPart + kPart - 1]; };
  if (t < kQ) {
    float since = steps.part_since[t], until = steps.part_until[t];
    for (int p = 0; p < kParts; ++p) {
      since *= p < t / kPart ? part_decay(p) : 1;
      until *= p > t / kPart ? part_decay(p) : 1;
    }
    steps.since[t] = since, steps.until[t] = until;
    if (t == kQ - 1) steps.whole = since;
  }
  if (t < kParts * kParts) {
    float product = 1;
    for (int p = t % kParts + 1; p < t / kParts; ++p) product *= part_decay(p);
    steps.between[t / kParts][t % kParts] = product;
  }
  __syncthreads();
}

template <class T>
__device__ __forceinline__ int64_t RowsOf(const SsdScanArgs<T>& a, int64_t t0) {
  return a.T - t0 < kQ ? a.T - t0 : kQ;
}

// Four warps; tiles for states of up to kN x kP. A warp has 16 kM rows of the state.
constexpr int kSsdThreads = 128;
template <class T, int kN_, int kP_>
struct SsdTile {
  using Element = T;
  static constexpr int kN = kN_, kP = kP_, kM = kN / 64;
  static constexpr int kPitchN = Fragments<T>::Pitch(kN), kPitchP = Fragments<T>::Pitch(kP);
  alignas(16) T keys[kQ * kPitchN], queries[kQ * kPitchN], rows[kQ * kPitchP];
  alignas(16) T state[kN * kPitchP];
  alignas(16) float scratch[kSsdThreads / 32][Fragments<T>::ScratchFloats(kQ) + 4];
  SsdSteps steps;

  // The first state row of a warp.
  static __device__ __forceinline__ int StateRow() { return threadIdx.x / 32 * 16 * kM; }
};

// use(SsdTile): the smallest that holds the state.
template <class T, class Use>
void ByStateSize(const SsdScanArgs<T>& a, Use&& use) {
  TESSERA_CHECK(a.CudaLimit().empty(), "%s", a.CudaLimit().c_str());
  if (a.N <= 64 && a.P <= 64) return use(std::type_identity<SsdTile<T, 64, 64>>{});
  if (a.P <= 64) return use(std::type_identity<SsdTile<T, 128, 64>>{});
  use(std::type_identity<SsdTile<T, 64, 128>>{});
}

// Begins to copy a chunk's `width` columns from rows `stride` apart; rows that are not there are 0.
template <int kColumns, class T>
__device__ __forceinline__ void StartRows(T* tile, const T* from, int64_t stride, int64_t count,
                                          int64_t width, bool aligned) {
  StartTile<kSsdThreads, kQ, kColumns>(
      tile, static_cast<int>(width), aligned, [&](int t) -> const T* {
        return from != nullptr && t < count ? from + t * stride : nullptr;
      });
}
// Whether rows of all heads can be copied 16 bytes at a time.
template <class T>
bool AlignedRows(const SsdScanArgs<T>& a, const T* rows, int64_t rows_stride) {
  return a.N % kVector<T> == 0 && a.P % kVector<T> == 0 && Aligned(a.b.data, a.b.stride) &&
         Aligned(a.c.data, a.c.stride) && Aligned(rows, rows_stride);
}

// The state at the end of a chunk: s = whole s + sum_t weight(t) key_t row_t^T.
template <class Tile, class Weight>
__device__ __forceinline__ void Advance(const typename Tile::Element* keys, const Tile& tile,
                                        Weight weight, float (&s)[Tile::kM][Tile::kP / 8][4]) {
  const float whole = tile.steps.whole;
  ForFragment(s, [&](int, int, float& x) { x *= whole; });
  Fragments<typename Tile::Element>::template Columns<kQ, Tile::kP, Tile::kPitchN, Tile::kPitchP>(
      keys + Tile::StateRow(), tile.rows, weight, s);
}

// A warp's part of a state [N, P] from memory or to it; null is zero.
template <class Tile>
__device__ __forceinline__ void LoadState(float (&s)[Tile::kM][Tile::kP / 8][4], int64_t N,
                                          int64_t P, const float* from) {
  LoadFragment(s, static_cast<int>(N) - Tile::StateRow(), static_cast<int>(P), P,
               from == nullptr ? nullptr : from + Tile::StateRow() * P);
}
template <class Tile>
__device__ __forceinline__ void SaveState(const float (&s)[Tile::kM][Tile::kP / 8][4], int64_t N,
                                          int64_t P, float* to) {
  SaveFragment(s, static_cast<int>(N) - Tile::StateRow(), static_cast<int>(P), P,
               to + Tile::StateRow() * P);
}

// Block (u, h, b): what unit u of `chunks` chunks adds to the state of head h at its end,
//   sum_t until_t dt_t B_t x_t^T,
// or, backward, what its outputs add to the gradient of the state at its start,
//   sum_t since_t C_t dy_t^T.
// Also the unit's whole decay. `rows` are x or dy.
template <Pass kPass, class Tile, class T>
__global__ void __launch_bounds__(kSsdThreads)
    SsdUnitState(SsdScanArgs<T> a, int64_t chunks, const T* rows, int64_t rows_stride,
                 StateArray states, float* whole, bool aligned) {
  TESSERA_DYNAMIC_SHARED(Tile, tile);
  const int64_t units = (a.chunks() + chunks - 1) / chunks;
  const GridPlace place = PlaceInGrid(units, a.H);
  const int64_t u = place.x, h = place.y, b = place.z;
  const int64_t g = h / (a.H / a.G);
  float* const out = StateAt(states, b, u, h, a.H, a.N * a.P);
  const int64_t first = u * chunks, end = first + chunks < a.chunks() ? first + chunks : a.chunks();
  float s[Tile::kM][Tile::kP / 8][4] = {}, product = 1;
  for (int64_t n = first; n < end; ++n) {
    const int64_t t0 = (kPass == Pass::kForward ? n : first + end - 1 - n) * kQ;
    const int64_t count = RowsOf(a, t0), row = b * a.T + t0;
    __syncthreads();  // the tiles before are read
    if (out != nullptr) {
      const T* const keys = kPass == Pass::kForward ? a.b.data : a.c.data;
      const int64_t stride = kPass == Pass::kForward ? a.b.stride : a.c.stride;
      StartRows<Tile::kN>(tile->keys, keys + row * stride + g * a.N, stride, count, a.N, aligned);
      StartRows<Tile::kP>(tile->rows,
                          rows == nullptr ? nullptr : rows + row * rows_stride + h * a.P,
                          rows_stride, count, a.P, aligned);
      cp_async_commit();
    }
    ReadSteps(a, b, h, t0, tile->steps);
    const SsdSteps& steps = tile->steps;
    product *= steps.whole;
    if (out == nullptr) continue;
    cp_async_wait<0>();
    __syncthreads();
    Advance<Tile>(
        tile->keys, *tile,
        [&](int t) {
          return kPass == Pass::kForward ? steps.until[t] * steps.dt[t] : steps.since[t];
        },
        s);
  }
  if (threadIdx.x == 0) whole[(b * units + u) * a.H + h] = product;
  if (out != nullptr) SaveState<Tile>(s, a.N, a.P, out);
}

// The two launches that leave the states of units in `states`.
template <Pass kPass, class Tile, class T>
void LaunchStates(const SsdScanArgs<T>& a, int64_t chunks, const T* rows, int64_t stride,
                  const StateArray& states, float* whole, const float* from, float* to, Grad mode) {
  const int64_t units = CeilDivide(a.chunks(), chunks);
  Launch(SsdUnitState<kPass, Tile, T>, FoldedGrid(units, a.H, a.B), dim3{kSsdThreads}, sizeof(Tile),
         a, chunks, rows, stride, states, whole, AlignedRows(a, rows, stride));
  PassStates(kPass, states, whole, a.B, units, a.H, 1, a.N * a.P, from, to, mode);
}

}  // namespace
}  // namespace tessera::TESSERA_DEVICE

#endif  // TESSERA_KERNELS_SCAN_SSD_TILE_CUH_
