#include "kernels/cuda/attention_tile.h"

// The tiles are computed again from lse (Dao 2023, algorithm 2), once by blocks that own queries,
// for dq, and once by blocks that own keys, for dk and dv: seven products in place of five, but no
// atomic addition, so that the result has the same bits each time.
//   p_ij = exp(s_ij - lse_i),  ds_ij = slope(s_ij) p_ij (do_i . v_j - delta_i),  delta_i = do_i .
//   o_i

namespace tessera::TESSERA_DEVICE {
namespace {

template <class T, int kD>
struct GradShared {
  static constexpr int kPitch = Fragments<T>::Pitch(kD), kRows = kInner<T, kD>;
  alignas(16) T own_first[kOuter * kPitch], own_second[kOuter * kPitch];
  alignas(16) T first[kRows * kPitch], second[kRows * kPitch];
  alignas(16) float scratch[kAttentionThreads / 32][Fragments<T>::ScratchFloats(kRows) + 4];
};

// delta[b, h, t] = <do, o>: a warp a query.
template <class T>
__global__ void __launch_bounds__(256) DeltaKernel(AttentionGradArgs<T> g, float* delta) {
  const AttentionArgs<T>& a = g.forward;
  const int64_t i = int64_t{blockIdx.x} * 8 + threadIdx.x / 32;
  if (i >= a.B * a.H * a.T) return;
  const int64_t t = i % a.T, h = i / a.T % a.H, row = i / a.T / a.H * a.T + t;
  float sum = 0;
  for (int64_t v = threadIdx.x % 32; v < a.V; v += 32)
    sum += ToFloat(a.o[row * a.o_stride + h * a.V + v]) *
           ToFloat(g.dout[row * g.dout_stride + h * a.V + v]);
  sum = WarpSum(sum);
  if (threadIdx.x % 32 == 0) delta[i] = sum;
}

template <class T>
__device__ __forceinline__ const T* QueryRow(const AttentionArgs<T>& a, const T* p, int64_t stride,
                                             int64_t width, int64_t b, int64_t h, int64_t t) {
  return t < a.T ? p + (b * a.T + t) * stride + h * width : nullptr;
}

// Block (i, h, b) owns queries [64 i, 64 i + 64) of head h and goes through the keys they see.
// Barriers as in the forward kernel.
template <class T, int kD>
__global__ void __launch_bounds__(kAttentionThreads)
    QueryGradKernel(AttentionGradArgs<T> g, const float* delta, bool aligned) {
  using F = Fragments<T>;
  using Shared = GradShared<T, kD>;
  constexpr int kRows = Shared::kRows, kThreads = kAttentionThreads;
  TESSERA_DYNAMIC_SHARED(Shared, shared);
  const AttentionArgs<T>& a = g.forward;
  const int64_t q0 = int64_t{blockIdx.x} * kOuter, h = blockIdx.y, b = blockIdx.z;
  const int64_t hkv = h / (a.H / a.Hkv);
  const int warp = threadIdx.x / 32, lane_row = threadIdx.x % 32 / 4;
  const int64_t last = q0 + kOuter < a.T ? q0 + kOuter - 1 : a.T - 1;
  LoadTile<kThreads, kOuter, kD>(shared->own_first, a.K, aligned, [&](int i) {
    return QueryRow(a, a.q, a.q_stride, a.K, b, h, q0 + i);
  });
  LoadTile<kThreads, kOuter, kD>(shared->own_second, a.V, aligned, [&](int i) {
    return QueryRow(a, g.dout, g.dout_stride, a.V, b, h, q0 + i);
  });
  int64_t first = a.L + q0;
  for (int64_t t = q0; t <= last; ++t) {
    const int64_t low = SightOf(a, b, t).low;
    first = low < first ? low : first;
  }
  const int64_t row[2] = {q0 + 16 * warp + lane_row, q0 + 16 * warp + lane_row + 8};
  Sight sight[2];
  float lse[2] = {}, along[2] = {};
  for (int r = 0; r < 2; ++r) {
    sight[r] = row[r] < a.T ? SightOf(a, b, row[r]) : Sight{0, -1};
    if (row[r] >= a.T) continue;
    lse[r] = a.lse[(b * a.H + h) * a.T + row[r]];
    along[r] = delta[(b * a.H + h) * a.T + row[r]];
  }
  float dq[kD / 8][4] = {};
  for (int64_t j0 = first / kRows * kRows; j0 <= a.L + last; j0 += kRows) {
    __syncthreads();
    LoadTile<kThreads, kRows, kD>(shared->first, a.K, aligned, [&](int i) -> const T* {
      if (j0 + i >= a.L + a.T) return nullptr;
      return KeyRow(a, a.k, a.k_stride, a.past_k, a.past_k_stride, b, j0 + i) + hkv * a.K;
    });
    LoadTile<kThreads, kRows, kD>(shared->second, a.V, aligned, [&](int i) -> const T* {
      if (j0 + i >= a.L + a.T) return nullptr;
      return KeyRow(a, a.v, a.v_stride, a.past_v, a.past_v_stride, b, j0 + i) + hkv * a.V;
    });
    __syncthreads();
    float s[kRows / 8][4] = {}, dp[kRows / 8][4] = {};
    F::template Dots<kRows, kD>(shared->own_first + 16 * warp * Shared::kPitch, shared->first, s);
    F::template Dots<kRows, kD>(shared->own_second + 16 * warp * Shared::kPitch, shared->second,
                                dp);
    ForFragment(dp, [&](int i, int j, float& d) {
      const int r = i == lane_row ? 0 : 1;
      const float x = Logit(a, s[j / 8][(i - lane_row) / 4 + j % 2]);
      const bool seen = j0 + j >= sight[r].low && j0 + j <= sight[r].high;
      d = seen ? LogitSlope(a, x) * expf(x - lse[r]) * (d - along[r]) : 0;
    });
    F::template Rows<kRows, kD>(dp, shared->first, shared->scratch[warp], dq);
  }
  ForFragment(dq, [&](int i, int k, float& x) {
    const int64_t t = row[i == lane_row ? 0 : 1];
    if (t < a.T && k < a.K) PutGrad(g.dq + (b * a.T + t) * g.dq_stride + h * a.K + k, x, g.dq_mode);
  });
}

// Block (i, hkv, b) owns keys [64 i, 64 i + 64) and goes through the queries of all heads that
// share them. A fragment's rows are keys here, its columns queries.
template <class T, int kD>
__global__ void __launch_bounds__(kAttentionThreads)
    KeyGradKernel(AttentionGradArgs<T> g, const float* delta, bool aligned) {
  using F = Fragments<T>;
  using Shared = GradShared<T, kD>;
  constexpr int kRows = Shared::kRows, kThreads = kAttentionThreads;
  TESSERA_DYNAMIC_SHARED(Shared, shared);
  TESSERA_SHARED(Sight[kRows], sight);
  TESSERA_SHARED(float[kRows], lse);
  TESSERA_SHARED(float[kRows], along);
  const AttentionArgs<T>& a = g.forward;
  const int64_t k0 = int64_t{blockIdx.x} * kOuter, hkv = blockIdx.y, b = blockIdx.z;
  const int64_t group = a.H / a.Hkv, keys = a.L + a.T;
  const int warp = threadIdx.x / 32, lane_row = threadIdx.x % 32 / 4;
  LoadTile<kThreads, kOuter, kD>(shared->own_first, a.K, aligned, [&](int i) -> const T* {
    if (k0 + i >= keys) return nullptr;
    return KeyRow(a, a.k, a.k_stride, a.past_k, a.past_k_stride, b, k0 + i) + hkv * a.K;
  });
  LoadTile<kThreads, kOuter, kD>(shared->own_second, a.V, aligned, [&](int i) -> const T* {
    if (k0 + i >= keys) return nullptr;
    return KeyRow(a, a.v, a.v_stride, a.past_v, a.past_v_stride, b, k0 + i) + hkv * a.V;
  });
  // The queries that can see any of these keys.
  const int64_t from = k0 > a.L ? (k0 - a.L) / kRows * kRows : 0;
  const int64_t reach = a.window > 0 ? k0 + kOuter - 1 + a.window - a.L : a.T;
  const int64_t to = reach < a.T ? reach : a.T;
  float dk[kD / 8][4] = {}, dv[kD / 8][4] = {};
  for (int64_t h = hkv * group; h < (hkv + 1) * group; ++h)
    for (int64_t t0 = from; t0 < to; t0 += kRows) {
      __syncthreads();
      LoadTile<kThreads, kRows, kD>(shared->first, a.K, aligned, [&](int i) {
        return QueryRow(a, a.q, a.q_stride, a.K, b, h, t0 + i);
      });
      LoadTile<kThreads, kRows, kD>(shared->second, a.V, aligned, [&](int i) {
        return QueryRow(a, g.dout, g.dout_stride, a.V, b, h, t0 + i);
      });
      for (int i = static_cast<int>(threadIdx.x); i < kRows; i += kThreads) {
        const bool here = t0 + i < a.T;
        sight[i] = here ? SightOf(a, b, t0 + i) : Sight{0, -1};
        lse[i] = here ? a.lse[(b * a.H + h) * a.T + t0 + i] : 0;
        along[i] = here ? delta[(b * a.H + h) * a.T + t0 + i] : 0;
      }
      __syncthreads();
      float p[kRows / 8][4] = {}, dp[kRows / 8][4] = {};
      F::template Dots<kRows, kD>(shared->own_first + 16 * warp * Shared::kPitch, shared->first, p);
      F::template Dots<kRows, kD>(shared->own_second + 16 * warp * Shared::kPitch, shared->second,
                                  dp);
      ForFragment(p, [&](int i, int j, float& x) {
        const int64_t key = k0 + 16 * warp + i;
        const float logit = Logit(a, x);
        x = key >= sight[j].low && key <= sight[j].high ? expf(logit - lse[j]) : 0;
        float& d = dp[j / 8][(i - lane_row) / 4 + j % 2];
        d = x == 0 ? 0 : LogitSlope(a, logit) * x * (d - along[j]);
      });
      F::template Rows<kRows, kD>(p, shared->second, shared->scratch[warp], dv);
      F::template Rows<kRows, kD>(dp, shared->first, shared->scratch[warp], dk);
    }
  const auto put = [&](float(&f)[kD / 8][4], T* fresh, int64_t stride, Grad mode, T* past,
                       int64_t past_stride, Grad past_mode, int64_t width) {
    ForFragment(f, [&](int i, int c, float& x) {
      const int64_t key = k0 + 16 * warp + i;
      if (key >= keys || c >= width) return;
      T* out = KeyRow(a, fresh, stride, past, past_stride, b, key);
      if (out != nullptr) PutGrad(out + hkv * width + c, x, key < a.L ? past_mode : mode);
    });
  };
  put(dk, g.dk, g.dk_stride, g.dk_mode, g.dpast_k, g.dpast_k_stride, g.dpast_k_mode, a.K);
  put(dv, g.dv, g.dv_stride, g.dv_mode, g.dpast_v, g.dpast_v_stride, g.dpast_v_mode, a.V);
}

template <class T>
void AttentionGrad(const AttentionGradArgs<T>& g) {
  const AttentionArgs<T>& a = g.forward;
  const int64_t queries = a.B * a.H * a.T;
  if (queries == 0) return;
  float* delta = ScratchFloats(g.CudaScratch());
  Launch(DeltaKernel<T>, dim3{static_cast<unsigned>(CeilDivide(queries, 8))}, dim3{256}, 0, g,
         delta);
  const bool aligned = AlignedKeys(a) && Aligned(g.dout, g.dout_stride);
  const auto B = static_cast<unsigned>(a.B);
  ByHeadWidth(a.K, a.V, [&](auto width) {
    constexpr int kD = width.value;
    constexpr size_t kBytes = sizeof(GradShared<T, kD>);
    if (g.dq != nullptr)
      Launch(QueryGradKernel<T, kD>,
             dim3{static_cast<unsigned>(CeilDivide(a.T, kOuter)), static_cast<unsigned>(a.H), B},
             dim3{kAttentionThreads}, kBytes, g, delta, aligned);
    if (g.dk != nullptr || g.dv != nullptr || g.dpast_k != nullptr || g.dpast_v != nullptr)
      Launch(KeyGradKernel<T, kD>,
             dim3{static_cast<unsigned>(CeilDivide(a.L + a.T, kOuter)),
                  static_cast<unsigned>(a.Hkv), B},
             dim3{kAttentionThreads}, kBytes, g, delta, aligned);
  });
}

}  // namespace

TESSERA_DEVICE_KERNEL(AttentionGrad)

}  // namespace tessera::TESSERA_DEVICE
