#ifndef TESSERA_KERNELS_ATTENTION_ATTENTION_TILE_CUH_
#define TESSERA_KERNELS_ATTENTION_ATTENTION_TILE_CUH_

#include "core/check.h"
#include "kernels/attention/attention.h"
#include "kernels/cuda/fragment.h"
#include "kernels/cuda/grid.h"

// What attention's forward and backward kernels share: who sees whom, and where rows stand.

namespace tessera::TESSERA_DEVICE {
namespace {

// Query t sees keys [low, high]; neither falls as t grows.
struct Sight {
  int low, high;
};
template <class T>
__device__ __forceinline__ int HighOf(const AttentionArgs<T>& a, int64_t b, int64_t t) {
  const int own = static_cast<int>(a.L + t);
  if (a.after == 0) return own;
  const int last =
      static_cast<int>(a.L) - 1 + (a.end ? a.end.data[b * a.T + t] : static_cast<int>(a.T));
  return a.after > 0 && own + a.after < last ? static_cast<int>(own + a.after) : last;
}
template <class T>
__device__ __forceinline__ Sight SightOf(const AttentionArgs<T>& a, int64_t b, int64_t t) {
  const int64_t own = a.L + t;
  Sight s{0, HighOf(a, b, t)};
  if (a.window > 0 && own >= a.window) s.low = static_cast<int>(own - a.window + 1);
  if (a.start) {
    const int start = static_cast<int>(a.L) + a.start.data[b * a.T + t];
    if (start > s.low) s.low = start;
  }
  return s;
}

// Where key j of a head begins, in the past or among the fresh rows, of k or v or of their
// gradients. Null where there is none.
template <class T>
__device__ __forceinline__ T* KeyRow(const AttentionArgs<T>& a, const View<T>& fresh,
                                     const View<T>& past, int64_t b, int64_t j) {
  if (j >= a.L) return fresh ? fresh.Row(b * a.T + j - a.L) : nullptr;
  if (!past) return nullptr;
  int64_t slot = a.past_first + j;
  if (slot >= a.past_capacity) slot -= a.past_capacity;
  return past.Row(b * a.past_capacity + slot);
}

// Exponentials are powers of two here, which is what the GPU computes: logits are multiplied by
// log2(e).
constexpr float kLog2E = 1.44269504f, kLn2 = 0.69314718f;

// A logit of base 2 where there is a soft cap, and the derivative of the logit itself.
template <class T>
__device__ __forceinline__ float CappedLogit(const AttentionArgs<T>& a, float dot) {
  return a.soft_cap * kLog2E * tanhf(a.scale / a.soft_cap * dot);
}
template <class T>
__device__ __forceinline__ float CappedSlope(const AttentionArgs<T>& a, float logit) {
  const float r = logit / (a.soft_cap * kLog2E);
  return a.scale * (1 - r * r);
}
template <class T>
__device__ __forceinline__ float Logit(const AttentionArgs<T>& a, float dot) {
  return a.soft_cap > 0 ? CappedLogit(a, dot) : a.scale * kLog2E * dot;
}

template <class T>
bool AlignedRows(const AttentionArgs<T>& a) {
  const int64_t per = kVector<T>;
  return a.K % per == 0 && a.V % per == 0 && Aligned(a.q) && Aligned(a.k) && Aligned(a.v) &&
         Aligned(a.o) && Aligned(a.past_k) && Aligned(a.past_v);
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

#endif  // TESSERA_KERNELS_ATTENTION_ATTENTION_TILE_CUH_
