#ifndef TESSERA_KERNELS_SCAN_SSD_SCAN_H_
#define TESSERA_KERNELS_SCAN_SSD_SCAN_H_

#include <cstdint>
#include <string>

#include "core/dtype.h"
#include "kernels/cost.h"

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
  static constexpr char kName[] = "ssd_scan";
  static constexpr int64_t kChunk = 64;

  const T_* x;  // [B,T,H*P]
  int64_t x_stride;
  const T_* dt;  // [B,T,H]: raw, before bias and softplus
  int64_t dt_stride;
  const T_* b;  // [B,T,G*N]
  int64_t b_stride;
  const T_* c;  // [B,T,G*N]
  int64_t c_stride;
  const float* A_log;              // [H]
  const float* dt_bias;            // [H]
  const float* D = nullptr;        // [H], or null: none
  const float* state = nullptr;    // [B,H,N,P], or null: zero
  const int32_t* start = nullptr;  // [B,T]
  T_* y;                           // [B,T,H*P]
  int64_t y_stride;
  float* last_state = nullptr;  // [B,H,N,P], or null: not wanted
  // chunk_states_floats(), or null where no gradient will be asked for: the state at the start of
  // every chunk but the first. Reading it back is faster than computing it again, and it is as
  // large as x in fp32 when N = 64.
  float* chunk_states = nullptr;
  int64_t B, T, H, G, N, P;

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
};

// Given the gradients of y and of the last state, those of everything else; each may be null.
template <class T_>
struct SsdScanGradArgs {
  static constexpr char kName[] = "ssd_scan_grad";
  SsdScanArgs<T_> forward;  // its results are not read, chunk_states are
  const T_* dy = nullptr;   // [B,T,H*P], or null: zero
  int64_t dy_stride = 0;
  const float* dlast_state = nullptr;  // [B,H,N,P], or null: zero
  T_* dx = nullptr;
  int64_t dx_stride = 0;
  Grad dx_mode = Grad::kOverwrite;
  T_* ddt = nullptr;
  int64_t ddt_stride = 0;
  Grad ddt_mode = Grad::kOverwrite;
  T_* db = nullptr;
  int64_t db_stride = 0;
  Grad db_mode = Grad::kOverwrite;
  T_* dc = nullptr;
  int64_t dc_stride = 0;
  Grad dc_mode = Grad::kOverwrite;
  float* dA_log = nullptr;
  Grad dA_log_mode = Grad::kOverwrite;
  float* ddt_bias = nullptr;
  Grad ddt_bias_mode = Grad::kOverwrite;
  float* dD = nullptr;
  Grad dD_mode = Grad::kOverwrite;
  float* dstate = nullptr;  // [B,H,N,P]
  Grad dstate_mode = Grad::kOverwrite;
  float* workspace = nullptr;  // workspace_floats(), contents undefined

  // Sums of each batch row for A_log, dt_bias and D, and, where tasks share a group, what each adds
  // to the gradients of B and C.
  constexpr int64_t head_floats() const { return 3 * forward.B * forward.H; }
  constexpr int64_t share_floats() const {
    return forward.tasks_per_group() == 1 ? 0 : forward.B * forward.T * forward.G * forward.N;
  }
  constexpr int64_t workspace_floats() const {
    return head_floats() + 2 * forward.tasks_per_group() * share_floats();
  }

  // A block of the CUDA kernel takes so many heads of a group through one chunk.
  constexpr int64_t cuda_heads() const {
    return forward.H / forward.G < 8 ? forward.H / forward.G : 8;
  }
  constexpr int64_t cuda_shares() const {
    return (forward.H / forward.G + cuda_heads() - 1) / cuda_heads();
  }
  constexpr int64_t cuda_share_floats() const {
    return cuda_shares() == 1 ? 0 : cuda_shares() * forward.B * forward.T * forward.G * forward.N;
  }
  // What it asks for, in floats: for each chunk its decay, the gradient of the state at its end,
  // and parts of the gradients of A_log, dt_bias and D; and shares of those of B and C.
  int64_t CudaScratch() const {
    return forward.B * forward.chunks() * forward.H * (1 + 3 + forward.N * forward.P) +
           2 * cuda_share_floats();
  }

  Cost cost() const {
    const SsdScanArgs<T_>& f = forward;
    // Two products within the chunk for each of the forward's, C B^T again, and four with states.
    return {.flops = 2 * f.pairs() * (2 * f.H * f.P + 3 * f.G * f.N) +
                     8 * f.B * f.T * f.H * f.N * f.P + 6 * f.B * f.T * f.H * f.P,
            .bytes = static_cast<int64_t>(sizeof(T_)) * f.B * f.T *
                         (3 * f.H * f.P + 2 * f.H + 4 * f.G * f.N) +
                     12 * f.B * f.H * f.N * f.P};
  }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_SCAN_SSD_SCAN_H_
