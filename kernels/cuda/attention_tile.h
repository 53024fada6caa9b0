#ifndef TESSERA_KERNELS_CUDA_ATTENTION_TILE_H_
#define TESSERA_KERNELS_CUDA_ATTENTION_TILE_H_

#include "core/check.h"
#include "kernels/attention.h"
#include "kernels/cuda/fragment.h"

// What attention's forward and backward kernels share: who sees whom, and where rows stand.

namespace tessera::TESSERA_DEVICE {
namespace {

constexpr int kAttentionThreads = 128;  // four warps of 16 rows
constexpr int kOuter = 64;              // rows that a block owns
// Rows of the tiles it goes through: fewer for wide heads, whose tiles and registers would not fit.
template <class T, int kD>
constexpr int kInner = kD > 128 ? 32 : 64;

// Query t sees keys [low, high].
struct Sight {
  int64_t low, high;
};
template <class T>
__device__ __forceinline__ Sight SightOf(const AttentionArgs<T>& a, int64_t b, int64_t t) {
  Sight s{0, a.L + t};
  if (a.window > 0 && s.high - a.window + 1 > 0) s.low = s.high - a.window + 1;
  if (a.position != nullptr) {
    const int64_t start = s.high - a.position[b * a.T + t];
    if (start > s.low) s.low = start;
  }
  return s;
}

// Where key j of a head begins, in the past or among the fresh rows. `stride` and `past_stride` are
// of k or v, or of their gradients.
template <class T, class P>
__device__ __forceinline__ P* KeyRow(const AttentionArgs<T>& a, P* fresh, int64_t stride, P* past,
                                     int64_t past_stride, int64_t b, int64_t j) {
  if (j >= a.L) return fresh == nullptr ? nullptr : fresh + (b * a.T + j - a.L) * stride;
  if (past == nullptr) return nullptr;
  return past + (b * a.past_capacity + (a.past_first + j) % a.past_capacity) * past_stride;
}

// A logit, and what its derivative is multiplied by.
template <class T>
__device__ __forceinline__ float Logit(const AttentionArgs<T>& a, float dot) {
  const float s = a.scale * dot;
  return a.soft_cap > 0 ? a.soft_cap * tanhf(s / a.soft_cap) : s;
}
template <class T>
__device__ __forceinline__ float LogitSlope(const AttentionArgs<T>& a, float logit) {
  if (a.soft_cap <= 0) return a.scale;
  const float r = logit / a.soft_cap;
  return a.scale * (1 - r * r);
}

template <class T>
bool AlignedKeys(const AttentionArgs<T>& a) {
  const int64_t per = kVector<T>;
  return a.K % per == 0 && a.V % per == 0 && Aligned(a.q, a.q_stride) && Aligned(a.k, a.k_stride) &&
         Aligned(a.v, a.v_stride) && Aligned(a.past_k, a.past_k_stride) &&
         Aligned(a.past_v, a.past_v_stride);
}

// use(constant): the smallest width of tiles that holds heads of K and V channels.
constexpr int64_t kMaxHeadWidth = AttentionArgs<float>::kCudaWidth;
template <class Use>
void ByHeadWidth(int64_t K, int64_t V, Use&& use) {
  const int64_t width = K > V ? K : V;
  TESSERA_CHECK(width <= kMaxHeadWidth, "heads of %ld channels; the CUDA kernels take up to %ld",
                width, kMaxHeadWidth);
  if (width <= 64) return use(std::integral_constant<int, 64>{});
  if (width <= 128) return use(std::integral_constant<int, 128>{});
  use(std::integral_constant<int, 256>{});
}

}  // namespace
}  // namespace tessera::TESSERA_DEVICE

#endif  // TESSERA_KERNELS_CUDA_ATTENTION_TILE_H_
