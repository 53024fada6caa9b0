#ifndef TESSERA_KERNELS_SCAN_SSD_SCAN_H_
#define TESSERA_KERNELS_SCAN_SSD_SCAN_H_

#include <cstdint>
#include <string>

#include "core/dtype.h"
#include "kernels/view.h"

// The state-space scan of Mamba-2 (Dao & Gu 2024, arXiv:2405.21060). Per head h, which reads group
// h / (H / G) of B and C:
//   dt_t = softplus(raw_t + dt_bias_h),   a_t = -exp(A_log_h) dt_t,
//   S_t = exp(a_t) S_{t-1} + dt_t B_t x_t^T,   y_t = S_t^T C_t + D_h x_t,        S [N,P].
// Where start[t] == t a document begins and S_{t-1} counts as 0 (start: Context::start; null: no
// document begins in this chunk).
//
// Computed in chunks of 64 tokens (section 6): (C B^T o L) X within a chunk, and the state from
// chunk to chunk. L_ts = prod_{s<r<=t} exp(a_r) is made by multiplying, row by row: factors in
// [0, 1] neither overflow nor cancel as differences of cumulated logarithms do, and a factor that
// is exactly 0 is the start of a document. The gradient of a_r is likewise a sum over the pairs
// s < r <= t themselves, not a difference of cumulated sums.

namespace tessera {

template <class T_>
struct SsdScanArgs {
  static constexpr char kName[] = "ssd_scan", kGradName[] = "ssd_scan_grad";
  static constexpr int64_t kChunk = 64;

  View<T_> x;                 // [B,T,H*P]
  View<T_> dt;                // [B,T,H]: raw, before bias and softplus
  View<T_> b, c;              // [B,T,G*N]
  View<float> A_log;          // [H]
  View<float> dt_bias;        // [H]
  View<float> D;              // [H], or none
  View<float> state;          // [B,H,N,P], or none: zero
  View<const int32_t> start;  // [B,T], or none
  View<T_> y;                 // [B,T,H*P]
  View<float> last_state;     // [B,H,N,P], or none: not wanted
  // The state at the start of every chunk but the first, for the gradient. Reading it back is
  // faster than computing it again, and it is as large as x in fp32 when N = 64.
  View<float> chunk_states;
  View<float> workspace;  // of the gradient
  int64_t B, T, H, G, N, P;
  template <class F>
  void Tensors(F&& f) {
    f.In("x", x, {B, T, H * P});
    f.In("dt", dt, {B, T, H});
    f.In("b", b, {B, T, G * N});
    f.In("c", c, {B, T, G * N});
    f.In("A_log", A_log, {H});
    f.In("dt_bias", dt_bias, {H});
    f.In("D", D, {H}, kOptional);
    f.In("state", state, {B, H, N, P}, kOptional | kDense);
    f.Index("start", start, {B, T}, kOptional);
    f.Out("y", y, {B, T, H * P});
    f.Out("last_state", last_state, {B, H, N, P}, kOptional | kDense);
    f.Kept("chunk_states", chunk_states, {chunk_states_floats()});
    f.GradWorkspace("workspace", workspace, {workspace_floats()});
  }

  constexpr int64_t chunks() const { return (T + kChunk - 1) / kChunk; }
  constexpr int64_t chunk_states_floats() const { return B * (chunks() - 1) * H * N * P; }

  // A task takes some heads of one group through all chunks, so that they share C B^T; fewer where
  // there would be few tasks.
  constexpr int64_t heads_per_task() const {
    const int64_t group = H / G;
    int64_t heads = group < 8 ? group : 8;
    while (heads > 1 && B * G * ((group + heads - 1) / heads) < 16) heads /= 2;
    return heads;
  }
  constexpr int64_t tasks_per_group() const {
    return (H / G + heads_per_task() - 1) / heads_per_task();
  }

  // Multiply-adds of all heads through one causal triangle of kChunk x kChunk pairs and the rest.
  constexpr int64_t pairs() const {
    const int64_t whole = T / kChunk, rest = T % kChunk;
    return B * (whole * kChunk * (kChunk + 1) / 2 + rest * (rest + 1) / 2);
  }
  // Why the CUDA kernels cannot, or nothing.
  std::string CudaLimit() const {
    if (N <= 128 && P <= 128 && (N <= 64 || P <= 64)) return "";
    return "a state of " + std::to_string(N) + " x " + std::to_string(P) +
           " (d_state x head_dim); the CUDA kernels of Mamba-2 take up to 128 x 64 or 64 x 128";
  }

  // There a block has several chunks in turn, so that states are read and written once for so many.
  static constexpr int64_t kCudaSpan = 4;
  constexpr int64_t cuda_spans() const { return (chunks() + kCudaSpan - 1) / kCudaSpan; }
  // What they ask for, in floats: decays of spans and states at their ends, the last one's too.
  int64_t CudaScratch() const { return B * H * (cuda_spans() + (cuda_spans() + 1) * N * P); }

  Cost cost() const {
    return {.flops = 2 * pairs() * (H * P + G * N) + 4 * B * T * H * N * P + 2 * B * T * H * P,
            .bytes = static_cast<int64_t>(sizeof(T_)) * B * T * (2 * H * P + H + 2 * G * N) +
                     8 * B * H * N * P};
  }

  // The gradient. Sums of each batch row for A_log, dt_bias and D, and, where tasks share a group,
  // what each adds to the gradients of B and C.
  constexpr int64_t head_floats() const { return 3 * B * H; }
  constexpr int64_t share_floats() const { return tasks_per_group() == 1 ? 0 : B * T * G * N; }
  constexpr int64_t workspace_floats() const {
    return head_floats() + 2 * tasks_per_group() * share_floats();
  }

  // A block of the gradient's CUDA kernel takes so many heads of a group through one chunk.
  constexpr int64_t cuda_heads() const { return H / G < 8 ? H / G : 8; }
  constexpr int64_t cuda_shares() const { return (H / G + cuda_heads() - 1) / cuda_heads(); }
  constexpr int64_t cuda_share_floats() const {
    return cuda_shares() == 1 ? 0 : cuda_shares() * B * T * G * N;
  }
  // What the gradient asks for, in floats: for each chunk its decay, the gradient of the state at
  // its end, and parts of the gradients of A_log, dt_bias and D; and shares of those of B and C.
  int64_t GradCudaScratch() const {
    return B * chunks() * H * (1 + 3 + N * P) + 2 * cuda_share_floats();
  }

  Cost grad_cost() const {
    // Two products within the chunk for each of the forward's, C B^T again, and four with states.
    return {
        .flops = 2 * pairs() * (2 * H * P + 3 * G * N) + 8 * B * T * H * N * P + 6 * B * T * H * P,
        .bytes = static_cast<int64_t>(sizeof(T_)) * B * T * (3 * H * P + 2 * H + 4 * G * N) +
                 12 * B * H * N * P};
  }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_SCAN_SSD_SCAN_H_
