#ifndef TESSERA_KERNELS_ATTENTION_ROPE_H_
#define TESSERA_KERNELS_ATTENTION_ROPE_H_

#include <cstdint>

#include "core/dtype.h"
#include "kernels/view.h"

// Rotary position embedding (Su et al. 2021, arXiv:2104.09864, eq. 34): the first R channels of
// each head are R/2 pairs, and pair i of the token at position m turns by the angle 2 pi m f_i,
//   (a, b) -> attention_factor (a cos - b sin, a sin + b cos).
// f_i is a frequency in turns a token. It is given as a sum of two floats, since the angle is m
// times as wrong as the frequency: one float would be off by a hundredth of a radian at m = 200000.
// The gradient is the rotation by the negative angle.

namespace tessera {

// Which channels of a head are pair i.
enum class RopePairing : uint8_t {
  kHalves,       // i and i + R/2  (GPT-NeoX, Llama)
  kInterleaved,  // 2i and 2i + 1  (GPT-J, DeepSeek)
};

// What a layer's rotation is, by value: no array to keep on a device.
struct RopeRotation {
  static constexpr int64_t kMaxPairs = 256;
  int64_t R = 0;  // even, 0 < R <= min(K, 2 * kMaxPairs); channels from R on are copied
  RopePairing pairing = RopePairing::kHalves;
  float attention_factor = 1;
  float high[kMaxPairs], low[kMaxPairs];  // f_i = high[i] + low[i]
};

template <class T_>
struct RopeArgs {
  static constexpr char kName[] = "rope", kGradName[] = "rope_grad";
  View<T_> x;                    // [B,T,H*K]
  View<const int32_t> position;  // [B,T]
  View<T_> y;                    // [B,T,H*K]
  int64_t B, T, H, K;
  RopeRotation rotation;
  template <class F>
  void Tensors(F&& f) {
    f.In("x", x, {B, T, H * K}, kUnread);
    f.Index("position", position, {B, T});
    f.Out("y", y, {B, T, H * K});
  }
  Cost cost() const {
    return {.flops = B * T * (3 * H + 1) * rotation.R,
            .bytes = B * T * (2 * H * K * static_cast<int64_t>(sizeof(T_)) + 4)};
  }
  Cost grad_cost() const { return cost(); }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_ATTENTION_ROPE_H_
