#include "kernels/scan/ssd_tile.cuh"

// Names as in kernels/scan/ssd_scan_grad.cc: U = dt o x, M = C B^T o L, S the state at a chunk's
// start and dS the gradient of the one at its end.

namespace tessera::TESSERA_DEVICE {
namespace {

// Eight warps: four times 16 tokens, twice half of the columns of whatever they compute. A half's
// sums over its columns meet in shared memory.
constexpr int kGradThreads = 256;

// Sums of which the step sizes' gradients are made.
union SsdSums {
  // First, from the pairs (t, s) within the chunk, by parts of 16: of t over the parts before its
  // own; of s over each part after its own; and within a part themselves.
  struct {
    float before[2][kQ], after[kParts][kQ], within[kQ][kPart];
  } pairs;
  // Then, of each token, by halves,
  struct {
    float dt[2][kQ];          // <x, dU>
    float to_end[2][kQ];      // from the pairs that leave the chunk
    float from_start[2][kQ];  // from the pairs that enter it
    float skip[2][kQ];        // <x, dy>
    float parts[2][3];
  } tokens;
};

template <class Forward>
struct SsdGradTile {
  using T = typename Forward::Element;
  static constexpr int kPitchPairs = Fragments<T>::Pitch(kQ);
  // fp32 states do not fit twice.
  static constexpr int kStates = sizeof(T) == 2 ? 2 : 1;
  alignas(16) T B[kQ * Forward::kPitchN], C[kQ * Forward::kPitchN];
  alignas(16) T x[kQ * Forward::kPitchP], dy[kQ * Forward::kPitchP], pairs[kQ * kPitchPairs];
  alignas(16) T states[kStates][Forward::kN * Forward::kPitchP];
  SsdSteps steps;
  SsdSums sums;
};

// Adds up a thread's two rows over the four lanes that have them.
__device__ __forceinline__ void PutRowSum(float (&sums)[2][kQ], const float (&part)[2]) {
  const int half = static_cast<int>(threadIdx.x) / 128, row0 = threadIdx.x / 32 % 4 * 16;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float all = RowSum(part[r]);
    if (threadIdx.x % 4 == 0) sums[half][row0 + FragmentRow(r)] = all;
  }
}

// What token r decays within its chunk: the pairs (t, s) with s < r <= t. They are sums of the
// pairs themselves: a difference of running sums would cancel.
__device__ __forceinline__ float PairsOver(const SsdSums& sums, int r) {
  const int part = r / kPart, first = part * kPart;
  float sum = 0;
  for (int p = part + 1; p < kParts; ++p)
    for (int s = 0; s < r; ++s) sum += sums.pairs.after[p][s];
  for (int t = r; t < first + kPart; ++t) {
    sum += sums.pairs.before[0][t] + sums.pairs.before[1][t];
    for (int s = 0; s < r - first; ++s) sum += sums.pairs.within[t][s];
  }
  return sum;
}

// Block (c, share, b): the gradients of chunk c, for some heads of a group one after another, since
// they share B and C, whose gradients stay in registers until the end: then they are the result, or
// where several blocks share a group, what is added up after.
template <class Forward, class T>
__global__ void __launch_bounds__(kGradThreads)
    SsdGradKernel(Gradient<SsdScanArgs<T>> g, StateArray dstates, float* head_sums, float* shares,
                  bool aligned) {
  using F = Fragments<T>;
  using Tile = SsdGradTile<Forward>;
  constexpr int kN = Forward::kN, kP = Forward::kP, kThreads = kGradThreads;
  constexpr int kPitchN = Forward::kPitchN, kPitchP = Forward::kPitchP;
  constexpr int kPitchPairs = Tile::kPitchPairs;
  TESSERA_DYNAMIC_SHARED(Tile, tile);
  const SsdScanArgs<T>& a = g.forward;
  const SsdSteps& steps = tile->steps;
  SsdSums& sums = tile->sums;
  const int64_t per_group = g.forward.cuda_shares();
  const GridPlace place = PlaceInGrid(a.chunks(), a.G * per_group);
  const int64_t c = place.x, of_group = place.y, b = place.z;
  const int64_t t0 = c * kQ, group = of_group / per_group, share = of_group % per_group;
  const int64_t count = RowsOf(a, t0), row = b * a.T + t0, size = a.N * a.P, heads = a.H / a.G;
  const int thread = static_cast<int>(threadIdx.x), half = thread / 128;
  const int row0 = thread / 32 % 4 * 16, part = row0 / kPart;
  const int pair0 = half * kQ / 2, n0 = half * kN / 2, p0 = half * kP / 2;
  const auto start = [&](T* to, const T* from, int64_t stride, int64_t width, auto columns) {
    StartTile<kThreads, kQ, columns.value>(to, static_cast<int>(width), aligned,
                                           [&](int t) -> const T* {
                                             if (from == nullptr || t >= count) return nullptr;
                                             return from + (row + t) * stride;
                                           });
  };
  const std::integral_constant<int, kN> n_columns;
  const std::integral_constant<int, kP> p_columns;
  start(tile->C, a.c.data + group * a.N, a.c.stride, a.N, n_columns);
  start(tile->B, a.b.data + group * a.N, a.b.stride, a.N, n_columns);
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
  float CB[1][kQ / 16][4] = {}, dCB[1][kQ / 16][4] = {};
  float dB[1][kN / 16][4] = {}, dC[1][kN / 16][4] = {};
  F::template Dots<kQ / 2, kN>(tile->C + row0 * kPitchN, tile->B + pair0 * kPitchN, CB);
  const int64_t last =
      heads < (share + 1) * g.forward.cuda_heads() ? heads : (share + 1) * g.forward.cuda_heads();
  for (int64_t h = group * heads + share * g.forward.cuda_heads(); h < group * heads + last; ++h) {
    __syncthreads();  // the head before is done
    start(tile->x, a.x.data + h * a.P, a.x.stride, a.P, p_columns);
    start(tile->dy, g.d.y.data == nullptr ? nullptr : g.d.y.data + h * a.P, g.d.y.stride, a.P,
          p_columns);
    cp_async_commit();
    // The states, and what the one that passes the chunk by owes to its decays.
    const float* const dS = StateAt(dstates, b, c, h, a.H, size);
    const float* const S =
        c > 0 ? a.chunk_states.data + ((b * (a.chunks() - 1) + c - 1) * a.H + h) * size
        : a.state.data != nullptr ? a.state.data + (b * a.H + h) * size
                                  : nullptr;
    T *const dS_tile = tile->states[0], *const S_tile = tile->states[Tile::kStates - 1];
    float over = 0;
#pragma unroll 4
    for (int i = thread; i < kN * kP; i += kThreads) {
      const int n = i / kP, p = i % kP;
      const bool there = n < a.N && p < a.P;
      const float ds = there ? dS[n * a.P + p] : 0, s = there && S != nullptr ? S[n * a.P + p] : 0;
      over += s * ds;
      dS_tile[n * kPitchP + p] = FromFloat<T>(ds);
      if (Tile::kStates == 2) S_tile[n * kPitchP + p] = FromFloat<T>(s);
    }
    ReadSteps(a, b, h, t0, tile->steps);
    cp_async_wait<0>();
    __syncthreads();
    const float D = a.D.data == nullptr ? 0 : a.D.data[h];
    const auto x_at = [&](int t, int p) { return ToFloat(tile->x[t * kPitchP + p]); };
    const auto dy_at = [&](int t, int p) { return ToFloat(tile->dy[t * kPitchP + p]); };
    {
      // M, the gradient of C B^T, and what each pair owes to the decays between its two.
      float dM[1][kQ / 16][4] = {}, M[1][kQ / 16][4], before[2] = {}, after[kQ / 16][2] = {};
      F::template Dots<kQ / 2, kP>(tile->dy + row0 * kPitchP, tile->x + pair0 * kPitchP, dM);
      ForPairDecays<kQ / 16>(steps, row0, pair0,
                             [&](int n, int e, int t, int s, float L, auto order) {
                               const float d = s <= t ? dM[0][n][e] * steps.dt[s] : 0;
                               M[0][n][e] = CB[0][n][e] * L;
                               dCB[0][n][e] += d * L;
                               const float owed = s < t ? d * M[0][n][e] : 0;
                               if (order.value == PartOrder::kSame) {
                                 sums.pairs.within[t][s % kPart] = owed;
                               } else {
                                 before[e / 2] += owed;
                                 after[n][e % 2] += owed;
                               }
                             });
      StoreFragment<kPitchPairs>(M, tile->pairs + row0 * kPitchPairs + pair0);
      PutRowSum(sums.pairs.before, before);
#pragma unroll
      for (int n = 0; n < kQ / 16; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float all = after[n][i];  // over the eight lanes of a column
          for (int lanes = 4; lanes < 32; lanes *= 2) all += __shfl_xor_sync(kAllLanes, all, lanes);
          if (thread % 32 < 4) sums.pairs.after[part][pair0 + 8 * n + thread % 4 * 2 + i] = all;
        }
    }
    __syncthreads();
    const float pairs_over = thread < kQ ? PairsOver(sums, thread) : 0;
    float to_dt[2] = {}, to_end[2] = {}, skip[2] = {}, from_start[2] = {};  // of this thread's rows
    {
      // dU = M^T dy + until o (B dS).
      float v[1][kP / 16][4] = {};
      F::template StoredRows<kN, kP / 2, kPitchP>(tile->B + row0 * kPitchN, dS_tile + p0, v);
      ForFragment(v, [&](int r, int p, float& d) {
        const int t = row0 + FragmentRow(r);
        d *= steps.until[t];
        to_end[r] += d * steps.dt[t] * x_at(t, p0 + p);
      });
      F::template Columns<kQ, kP / 2, kPitchPairs, kPitchP>(tile->pairs + row0, tile->dy + p0,
                                                            Unscaled{}, v);
      ForFragment(v, [&](int r, int p, float& d) {
        const int t = row0 + FragmentRow(r);
        const float x = x_at(t, p0 + p), dy = dy_at(t, p0 + p);
        to_dt[r] += d * x;
        skip[r] += dy * x;
        d = d * steps.dt[t] + D * dy;
      });
      if (g.d.x.data != nullptr)
        PutPairs<T>(v, a.P - p0, aligned, g.d.x.mode, [&](int r) -> T* {
          const int t = row0 + FragmentRow(r);
          return t < count ? g.d.x.data + (row + t) * g.d.x.stride + h * a.P + p0 : nullptr;
        });
    }
    float v[1][kN / 16][4] = {};
    F::template Dots<kN / 2, kP>(tile->x + row0 * kPitchP, dS_tile + n0 * kPitchP, v);
#pragma unroll
    for (int n = 0; n < kN / 16; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int t = row0 + FragmentRow(e / 2);
        dB[0][n][e] += steps.until[t] * steps.dt[t] * v[0][n][e];
        v[0][n][e] = 0;
      }
    if (S != nullptr) {  // the whole block
      if (Tile::kStates == 1) {
        __syncthreads();
        for (int i = thread; i < kN * kP; i += kThreads) {
          const int n = i / kP, p = i % kP;
          S_tile[n * kPitchP + p] = FromFloat<T>(n < a.N && p < a.P ? S[n * a.P + p] : 0);
        }
        __syncthreads();
      }
      F::template Dots<kN / 2, kP>(tile->dy + row0 * kPitchP, S_tile + n0 * kPitchP, v);
#pragma unroll
      for (int n = 0; n < kN / 16; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int t = row0 + FragmentRow(e / 2), column = n0 + 8 * n + thread % 4 * 2 + e % 2;
          v[0][n][e] *= steps.since[t];
          dC[0][n][e] += v[0][n][e];
          from_start[e / 2] += v[0][n][e] * ToFloat(tile->C[t * kPitchN + column]);
        }
    }
    __syncthreads();  // the sums over pairs are read
    PutRowSum(sums.tokens.dt, to_dt);
    PutRowSum(sums.tokens.to_end, to_end);
    PutRowSum(sums.tokens.from_start, from_start);
    PutRowSum(sums.tokens.skip, skip);
    over = BlockSum<kThreads>(over) * steps.whole;  // with barriers
    // A thread a token: the pairs that pass it by, come from before the chunk and leave it.
    if (thread < kQ) {
      const int t = thread;
      float owed = over + pairs_over;
      for (int i = 0; i < kQ; ++i)
        owed += i >= t ? sums.tokens.from_start[0][i] + sums.tokens.from_start[1][i]
                       : sums.tokens.to_end[0][i] + sums.tokens.to_end[1][i];
      const float rate = expf(a.A_log.data[h]);
      const float raw =
          (sums.tokens.dt[0][t] + sums.tokens.dt[1][t] - rate * owed) * steps.slope[t];
      if (g.d.dt.data != nullptr && t < count)
        PutGrad(g.d.dt.data + (row + t) * g.d.dt.stride + h, raw, g.d.dt.mode);
      const float A_log = WarpSum(t < count ? -rate * steps.dt[t] * owed : 0);
      const float dt_bias = WarpSum(t < count ? raw : 0);
      const float of_D = WarpSum(t < count ? sums.tokens.skip[0][t] + sums.tokens.skip[1][t] : 0);
      if (t % 32 == 0) {
        float* const part_sums = sums.tokens.parts[t / 32];
        part_sums[0] = A_log, part_sums[1] = dt_bias, part_sums[2] = of_D;
      }
    }
    __syncthreads();
    if (thread < 3)
      head_sums[((b * a.chunks() + c) * 3 + thread) * a.H + h] =
          sums.tokens.parts[0][thread] + sums.tokens.parts[1][thread];
  }
  // The triangle of C B^T, summed over heads, reaches B and C.
  __syncthreads();
  StoreFragment<kPitchPairs>(dCB, tile->pairs + row0 * kPitchPairs + pair0);
  __syncthreads();
  F::template StoredRows<kQ, kN / 2, kPitchN>(tile->pairs + row0 * kPitchPairs, tile->B + n0, dC);
  F::template Columns<kQ, kN / 2, kPitchPairs, kPitchN>(tile->pairs + row0, tile->C + n0,
                                                        Unscaled{}, dB);
  const auto put = [&](const auto& f, float* share_of, T* to, int64_t stride, Grad mode) {
    if (to == nullptr) return;
    const auto at = [&](auto* p, int64_t p_stride, int r) -> decltype(p) {
      const int t = row0 + FragmentRow(r);
      return t < count ? p + (row + t) * p_stride + group * a.N + n0 : nullptr;
    };
    if (per_group == 1)
      PutPairs<T>(f, a.N - n0, aligned, mode, [&](int r) { return at(to, stride, r); });
    else
      PutPairs<float>(f, a.N - n0, aligned, Grad::kOverwrite, [&](int r) {
        return at(share_of + share * a.B * a.T * a.G * a.N, a.G * a.N, r);
      });
  };
  put(dB, shares, g.d.b.data, g.d.b.stride, g.d.b.mode);
  put(dC, shares + g.forward.cuda_share_floats(), g.d.c.data, g.d.c.stride, g.d.c.mode);
}

// A gradient of [rows, columns] from the shares of it, in order.
template <class T>
struct SumSharesBody {
  const float* shares;
  int64_t count, rows, columns;
  T* y;
  int64_t stride;
  Grad mode;
  template <int N>
  __device__ void At(int64_t row, int64_t column) const {
    float sum[N] = {};
    for (int64_t i = 0; i < count; ++i) {
      const float* const from = shares + (i * rows + row) * columns + column;
#pragma unroll
      for (int j = 0; j < N; ++j) sum[j] += from[j];
    }
    PutGrad(y + row * stride + column, sum, mode);
  }
};

template <class T>
void SsdScanGrad(const Gradient<SsdScanArgs<T>>& g) {
  const SsdScanArgs<T>& a = g.forward;
  if (a.B * a.T * a.H == 0) return;
  const int64_t parts = a.B * a.chunks(), columns = a.G * a.N;
  const Scratch scratch(g.CudaScratch());
  float* const whole = scratch.floats();
  float *const head_sums = whole + parts * a.H, *const states = head_sums + 3 * parts * a.H;
  float* const shares = states + parts * a.H * a.N * a.P;
  const StateArray dstates = Dense(states, a.chunks(), nullptr);
  const bool aligned = AlignedRows(a, a.x.data, a.x.stride) && Aligned(g.d.y.data, g.d.y.stride) &&
                       Aligned(g.d.x.data, g.d.x.stride) && Aligned(g.d.b.data, g.d.b.stride) &&
                       Aligned(g.d.c.data, g.d.c.stride);
  ByStateSize(a, [&](auto type) {
    using Forward = typename decltype(type)::type;
    static_assert(sizeof(SsdGradTile<Forward>) <= kSharedBytes);
    LaunchStates<Pass::kBackward, Forward>(a, 1, g.d.y.data, g.d.y.stride, dstates, whole,
                                           g.d.last_state.data, g.d.state.data, g.d.state.mode);
    Launch(SsdGradKernel<Forward, T>, FoldedGrid(a.chunks(), a.G * g.forward.cuda_shares(), a.B),
           dim3{kGradThreads}, sizeof(SsdGradTile<Forward>), g, dstates, head_sums, shares,
           aligned);
  });
  const auto add_shares = [&](const float* from, T* to, int64_t stride, Grad mode) {
    if (to == nullptr || g.forward.cuda_shares() == 1) return;
    ForElements<T>(
        a.B * a.T, columns, Aligned(to, stride),
        SumSharesBody<T>{from, g.forward.cuda_shares(), a.B * a.T, columns, to, stride, mode});
  };
  add_shares(shares, g.d.b.data, g.d.b.stride, g.d.b.mode);
  add_shares(shares + g.forward.cuda_share_floats(), g.d.c.data, g.d.c.stride, g.d.c.mode);
  const auto sum = [&](int64_t which, float* to, Grad mode) {
    if (to != nullptr) LaunchSumParts(head_sums + which * a.H, parts, 3 * a.H, a.H, to, mode);
  };
  sum(0, g.d.A_log.data, g.d.A_log.mode);
  sum(1, g.d.dt_bias.data, g.d.dt_bias.mode);
  sum(2, g.d.D.data, g.d.D.mode);
}

}  // namespace

TESSERA_DEVICE_KERNEL_OF(Gradient<SsdScanArgs<float>>, SsdScanGrad)
TESSERA_DEVICE_KERNEL_OF(Gradient<SsdScanArgs<bf16>>, SsdScanGrad)

}  // namespace tessera::TESSERA_DEVICE
