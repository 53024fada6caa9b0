#ifndef TESSERA_KERNELS_CONVOLUTION_CAUSAL_CONV_H_
#define TESSERA_KERNELS_CONVOLUTION_CAUSAL_CONV_H_

#include <cstdint>

#include "core/dtype.h"
#include "kernels/view.h"

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
  static constexpr char kName[] = "causal_conv", kGradName[] = "causal_conv_grad";
  static constexpr int64_t kMaxWidth = 8;

  View<T_> x;                 // [B,T,C]
  View<float> weight;         // [C,W]; the last tap meets the token itself
  View<float> bias;           // [C], or none
  View<float> state;          // [B,W-1,C], or none: zero
  View<const int32_t> start;  // [B,T], or none
  View<T_> y;                 // [B,T,C]
  View<float> last_state;     // [B,W-1,C], or none: not wanted
  View<float> workspace;      // of the gradient
  int64_t B, T, C, W;         // 2 <= W <= kMaxWidth
  ConvActivation activation = ConvActivation::kNone;
  template <class F>
  void Tensors(F&& f) {
    f.In("x", x, {B, T, C});
    f.In("weight", weight, {C, W}, kDense);
    f.In("bias", bias, {C}, kOptional);
    f.In("state", state, {B, W - 1, C}, kOptional | kDense);
    f.Index("start", start, {B, T}, kOptional);
    f.Out("y", y, {B, T, C});
    f.Out("last_state", last_state, {B, W - 1, C}, kOptional | kDense);
    f.GradWorkspace("workspace", workspace, {workspace_floats()});
  }

  Cost cost() const {
    const int64_t per = 2 * W + (activation == ConvActivation::kSilu ? 4 : 0);
    return {.flops = per * B * T * C,
            .bytes = 2 * static_cast<int64_t>(sizeof(T_)) * B * T * C + 8 * B * (W - 1) * C +
                     4 * (W + 1) * C};
  }

  // The gradient: sums for weight and bias of each run of tokens, added up in order afterwards.
  static constexpr int64_t kRun = 256;
  constexpr int64_t runs() const { return (T + kRun - 1) / kRun; }
  // A GPU has more to do at once, and so shorter runs.
  static constexpr int64_t kCudaRun = 64;
  constexpr int64_t cuda_runs() const { return (T + kCudaRun - 1) / kCudaRun; }
  constexpr int64_t workspace_floats() const { return B * cuda_runs() * (W + 1) * C; }

  Cost grad_cost() const {
    const int64_t silu = activation == ConvActivation::kSilu ? 2 * W + 8 : 0;
    return {.flops = (4 * W + silu) * B * T * C,
            .bytes = 3 * static_cast<int64_t>(sizeof(T_)) * B * T * C + 12 * B * (W - 1) * C +
                     8 * (W + 1) * C};
  }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_CONVOLUTION_CAUSAL_CONV_H_
