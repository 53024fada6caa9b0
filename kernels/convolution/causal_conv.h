#ifndef TESSERA_KERNELS_CONVOLUTION_CAUSAL_CONV_H_
#define TESSERA_KERNELS_CONVOLUTION_CAUSAL_CONV_H_

#include <cstdint>

#include "core/dtype.h"
#include "kernels/cost.h"

// A short depthwise convolution over time, causal, as before the scan of Mamba (Gu & Dao 2023,
// arXiv:2312.00752, section 3.4):
//   u_t = bias + sum_{l<W} w[:, W-1-l] x_{t-l},   y_t = u_t, or silu(u_t).
// A tap before the start of t's document, t - l < start[t], counts as 0 (start: Context::start).
// Taps before the chunk read the state: the last W-1 inputs, oldest first, with 0 for what no later
// token can reach. Start null: no document begins in this chunk.

namespace tessera {

enum class ConvActivation : uint8_t { kNone, kSilu };

template <class T_>
struct CausalConvArgs {
  static constexpr char kName[] = "causal_conv";
  static constexpr int64_t kMaxWidth = 8;

  const T_* x;  // [B,T,C]
  int64_t x_stride;
  const float* weight;             // [C,W]; the last tap meets the token itself
  const float* bias = nullptr;     // [C], or null
  const float* state = nullptr;    // [B,W-1,C], or null: zero
  const int32_t* start = nullptr;  // [B,T]
  T_* y;                           // [B,T,C]
  int64_t y_stride;
  float* last_state = nullptr;  // [B,W-1,C], or null: not wanted
  int64_t B, T, C, W;           // 2 <= W <= kMaxWidth
  ConvActivation activation = ConvActivation::kNone;

  Cost cost() const {
    const int64_t per = 2 * W + (activation == ConvActivation::kSilu ? 4 : 0);
    return {.flops = per * B * T * C,
            .bytes = 2 * static_cast<int64_t>(sizeof(T_)) * B * T * C + 8 * B * (W - 1) * C +
                     4 * (W + 1) * C};
  }
};

// Given the gradients of y and of the last state, those of everything else; each may be null.
template <class T_>
struct CausalConvGradArgs {
  static constexpr char kName[] = "causal_conv_grad";
  CausalConvArgs<T_> forward;  // its results are not read
  const T_* dy = nullptr;      // [B,T,C], or null: zero
  int64_t dy_stride = 0;
  const float* dlast_state = nullptr;  // [B,W-1,C], or null: zero
  T_* dx = nullptr;
  int64_t dx_stride = 0;
  Grad dx_mode = Grad::kOverwrite;
  float* dweight = nullptr;  // [C,W]
  Grad dweight_mode = Grad::kOverwrite;
  float* dbias = nullptr;  // [C]
  Grad dbias_mode = Grad::kOverwrite;
  float* dstate = nullptr;  // [B,W-1,C]
  Grad dstate_mode = Grad::kOverwrite;
  float* workspace = nullptr;  // workspace_floats(), contents undefined

  // The sums for weight and bias of each run of tokens, added up in order afterwards.
  static constexpr int64_t kRun = 256;
  constexpr int64_t runs() const { return (forward.T + kRun - 1) / kRun; }
  // A GPU has more to do at once, and so shorter runs.
  static constexpr int64_t kCudaRun = 64;
  constexpr int64_t cuda_runs() const { return (forward.T + kCudaRun - 1) / kCudaRun; }
  constexpr int64_t workspace_floats() const {
    return forward.B * cuda_runs() * (forward.W + 1) * forward.C;
  }

  Cost cost() const {
    const CausalConvArgs<T_>& f = forward;
    const int64_t silu = f.activation == ConvActivation::kSilu ? 2 * f.W + 8 : 0;
    return {.flops = (4 * f.W + silu) * f.B * f.T * f.C,
            .bytes = 3 * static_cast<int64_t>(sizeof(T_)) * f.B * f.T * f.C +
                     12 * f.B * (f.W - 1) * f.C + 8 * (f.W + 1) * f.C};
  }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_CONVOLUTION_CAUSAL_CONV_H_
