#ifndef TESSERA_KERNELS_SCAN_GLA_SCAN_H_
#define TESSERA_KERNELS_SCAN_GLA_SCAN_H_

#include <cstdint>
#include <string>

#include "core/dtype.h"
#include "kernels/cost.h"

// Gated linear attention (Yang et al. 2024, arXiv:2312.06635, eq. 3), per head:
//   S_t = diag(exp(g_t)) S_{t-1} + k_t v_t^T,   o_t = scale S_t^T q_t,   g_t <= 0 [K],   S [K,V].
// Where start[t] == t a document begins and S_{t-1} counts as 0 (start: Context::start; null: no
// document begins in this chunk).
//
// Computed in chunks of 16 tokens: o = (q o decay since the chunk's start) S + A v, and the state
// from chunk to chunk. The paper divides by cumulated decays, which overflows, and needs a second
// level of chunks against it (section 4.3); here A_ts = sum_k q_tk k_sk prod_{s<r<=t} exp(g_rk) is
// made by multiplying on, pair by pair. Its 136 pairs cost less than the sums of a longer chunk
// would. Factors in [0, 1] never overflow for any g, and a factor that is exactly 0 is the start of
// a document. The gradient of g_r is a sum over the pairs s < r <= t themselves, so nothing
// cancels.

namespace tessera {

template <class T_>
struct GlaScanArgs {
  static constexpr char kName[] = "gla_scan";
  static constexpr int64_t kChunk = 16, kChunksPerKept = 4;

  const T_* q;  // [B,T,H*K]
  int64_t q_stride;
  const T_* k;  // [B,T,H*K]
  int64_t k_stride;
  const T_* v;  // [B,T,H*V]
  int64_t v_stride;
  const T_* g;  // [B,T,H*K], log gates
  int64_t g_stride;
  const float* state = nullptr;    // [B,H,K,V], or null: zero
  const int32_t* start = nullptr;  // [B,T]
  T_* o;                           // [B,T,H*V]
  int64_t o_stride;
  float* last_state = nullptr;  // [B,H,K,V], or null: not wanted
  // kept_floats(), or null where no gradient will be asked for: the state at the start of every
  // fourth chunk but the first. The gradient computes the three between again, since keeping them
  // all would take K / 16 times the bytes of v in fp32.
  float* kept = nullptr;
  int64_t B, T, H, K, V;
  float scale;

  constexpr int64_t chunks() const { return (T + kChunk - 1) / kChunk; }
  constexpr int64_t spans() const { return (chunks() + kChunksPerKept - 1) / kChunksPerKept; }
  constexpr int64_t kept_floats() const { return B * (spans() - 1) * H * K * V; }

  constexpr int64_t pairs() const {
    const int64_t whole = T / kChunk, rest = T % kChunk;
    return B * H * (whole * kChunk * (kChunk + 1) / 2 + rest * (rest + 1) / 2);
  }
  // Why the CUDA kernels cannot, or nothing.
  static constexpr int kCudaWidth = 128;
  std::string CudaLimit() const {
    if (K <= kCudaWidth && V <= kCudaWidth) return "";
    return "heads of " + std::to_string(K) + " x " + std::to_string(V) +
           "; the CUDA kernels of gated linear attention take up to 128 x 128";
  }

  // What they ask for, in floats: decays of spans, states at their ends.
  int64_t CudaScratch() const { return B * H * (spans() * K + K * V) + kept_floats(); }

  Cost cost() const {
    return {.flops = pairs() * (3 * K + 2 * V) + B * T * H * (4 * K * V + 4 * K),
            .bytes =
                static_cast<int64_t>(sizeof(T_)) * B * T * H * (3 * K + 2 * V) + 8 * B * H * K * V};
  }
};

// Given the gradients of o and of the last state, those of everything else; each may be null.
template <class T_>
struct GlaScanGradArgs {
  static constexpr char kName[] = "gla_scan_grad";
  GlaScanArgs<T_> forward;   // its results are not read, kept is
  const T_* dout = nullptr;  // [B,T,H*V], or null: zero
  int64_t dout_stride = 0;
  const float* dlast_state = nullptr;  // [B,H,K,V], or null: zero
  T_* dq = nullptr;
  int64_t dq_stride = 0;
  Grad dq_mode = Grad::kOverwrite;
  T_* dk = nullptr;
  int64_t dk_stride = 0;
  Grad dk_mode = Grad::kOverwrite;
  T_* dv = nullptr;
  int64_t dv_stride = 0;
  Grad dv_mode = Grad::kOverwrite;
  T_* dg = nullptr;
  int64_t dg_stride = 0;
  Grad dg_mode = Grad::kOverwrite;
  float* dstate = nullptr;  // [B,H,K,V]
  Grad dstate_mode = Grad::kOverwrite;

  // What the CUDA kernels ask for, in floats: for each span its decays and the gradient of the
  // state at its end.
  int64_t CudaScratch() const {
    return forward.B * forward.H * forward.spans() * (forward.K + forward.K * forward.V);
  }

  Cost cost() const {
    const GlaScanArgs<T_>& f = forward;
    // The pairs again, twice their values' products and thrice their keys', four products with
    // states and the states between kept ones.
    return {.flops = f.pairs() * (9 * f.K + 4 * f.V) + 10 * f.B * f.T * f.H * f.K * f.V,
            .bytes = static_cast<int64_t>(sizeof(T_)) * f.B * f.T * f.H * (6 * f.K + 3 * f.V) +
                     12 * f.B * f.H * f.K * f.V};
  }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_SCAN_GLA_SCAN_H_
