#ifndef TESSERA_KERNELS_SCAN_GLA_SCAN_H_
#define TESSERA_KERNELS_SCAN_GLA_SCAN_H_

#include <cstdint>
#include <string>

#include "core/dtype.h"
#include "kernels/view.h"

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
  static constexpr char kName[] = "gla_scan", kGradName[] = "gla_scan_grad";
  static constexpr int64_t kChunk = 16, kChunksPerKept = 4;

  View<T_> q, k;              // [B,T,H*K]
  View<T_> v;                 // [B,T,H*V]
  View<T_> g;                 // [B,T,H*K], log gates
  View<float> state;          // [B,H,K,V], or none: zero
  View<const int32_t> start;  // [B,T], or none
  View<T_> o;                 // [B,T,H*V]
  View<float> last_state;     // [B,H,K,V], or none: not wanted
  // The state at the start of every fourth chunk but the first, for the gradient, which computes
  // the three between again: keeping them all would take K / 16 times the bytes of v in fp32.
  View<float> kept;
  int64_t B, T, H, K, V;
  float scale;
  template <class F>
  void Tensors(F&& f) {
    f.In("q", q, {B, T, H * K});
    f.In("k", k, {B, T, H * K});
    f.In("v", v, {B, T, H * V});
    f.In("g", g, {B, T, H * K});
    f.In("state", state, {B, H, K, V}, kOptional | kDense);
    f.Index("start", start, {B, T}, kOptional);
    f.Out("o", o, {B, T, H * V});
    f.Out("last_state", last_state, {B, H, K, V}, kOptional | kDense);
    f.Kept("kept", kept, {kept_floats()});
  }

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
  // The gradient: for each span its decays and the gradient of the state at its end.
  int64_t GradCudaScratch() const { return B * H * spans() * (K + K * V); }

  Cost cost() const {
    return {.flops = pairs() * (3 * K + 2 * V) + B * T * H * (4 * K * V + 4 * K),
            .bytes =
                static_cast<int64_t>(sizeof(T_)) * B * T * H * (3 * K + 2 * V) + 8 * B * H * K * V};
  }
  // The pairs again, twice their values' products and thrice their keys', four products with states
  // and the states between kept ones.
  Cost grad_cost() const {
    return {.flops = pairs() * (9 * K + 4 * V) + 10 * B * T * H * K * V,
            .bytes = static_cast<int64_t>(sizeof(T_)) * B * T * H * (6 * K + 3 * V) +
                     12 * B * H * K * V};
  }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_SCAN_GLA_SCAN_H_
