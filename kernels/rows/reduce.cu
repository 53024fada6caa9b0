#include "kernels/cuda/team.h"
#include "kernels/rows/reduce.h"

// A team has one group of one row, which it reads once, or for a maximum or an lse twice, the
// second time from cache.

namespace tessera::TESSERA_DEVICE {
namespace {

// What a team's columns of x add up to, and their largest.
template <int kTeam, int N, class T>
__device__ __forceinline__ float SumOf(const T* x, int64_t W) {
  float sum = 0, v[N];
  Team<kTeam>::template ForColumns<N>(0, W, [&](int64_t c) {
    Load(x + c, v);
#pragma unroll
    for (const float u : v) sum += u;
  });
  return Team<kTeam>::Sum(sum);
}
template <int kTeam, int N, class T>
__device__ __forceinline__ float LargestOf(const T* x, int64_t W) {
  float most = -INFINITY, v[N];
  Team<kTeam>::template ForColumns<N>(0, W, [&](int64_t c) {
    Load(x + c, v);
#pragma unroll
    for (const float u : v) most = fmaxf(most, u);
  });
  return Team<kTeam>::Max(most);
}
template <int kTeam, int N, class T>
__device__ __forceinline__ float LseOf(const T* x, int64_t W) {
  const float most = LargestOf<kTeam, N>(x, W);
  if (fabsf(most) == INFINITY) return most;  // the whole team
  float sum = 0, v[N];
  Team<kTeam>::template ForColumns<N>(0, W, [&](int64_t c) {
    Load(x + c, v);
#pragma unroll
    for (const float u : v) sum += expf(u - most);
  });
  return most + logf(Team<kTeam>::Sum(sum));
}

template <class T>
struct ReduceBody {
  ReduceArgs<T> a;
  template <int kTeam, int N>
  __device__ __forceinline__ void Do(int64_t item) const {
    const int64_t row = item / a.G, group = item % a.G;
    const T* const x = a.x.Row(row) + group * a.W;
    float v;
    if (a.reduction == Reduction::kMax)
      v = LargestOf<kTeam, N>(x, a.W);
    else if (a.reduction == Reduction::kLse)
      v = LseOf<kTeam, N>(x, a.W);
    else
      v = SumOf<kTeam, N>(x, a.W);
    if (a.reduction == Reduction::kMean) v /= static_cast<float>(a.W);
    if (Team<kTeam>::Rank() > 0) return;
    a.y.Row(row)[group] = FromFloat<T>(v);
    if (a.lse) a.lse.Row(row)[group] = v;
  }
};

template <class T>
struct ReduceGradBody {
  Gradient<ReduceArgs<T>> g;
  template <int kTeam, int N>
  __device__ __forceinline__ void Do(int64_t item) const {
    const ReduceArgs<T>& a = g.forward;
    const int64_t row = item / a.G, group = item % a.G;
    const T* const x = a.x.Row(row) + group * a.W;
    T* const dx = g.d.x.Row(row) + group * a.W;
    const float dy = ToFloat(g.d.y.Row(row)[group]);
    const bool max = a.reduction == Reduction::kMax, lse = a.reduction == Reduction::kLse;
    const float share = a.reduction == Reduction::kMean ? dy / static_cast<float>(a.W) : dy;
    const int64_t first = max ? FirstLargest<kTeam, N>(x) : 0;
    const float kept = lse ? a.lse.Row(row)[group] : 0, total = kept == -INFINITY ? 0 : kept;
    Team<kTeam>::template ForColumns<N>(0, a.W, [&](int64_t c) {
      float v[N] = {};
      if (lse) Load(x + c, v);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        if (max)
          v[i] = c + i == first ? dy : 0;
        else
          v[i] = lse ? expf(v[i] - total) * dy : share;
      }
      PutGrad(dx + c, v, g.d.x.mode);
    });
  }
  template <int kTeam, int N>
  __device__ __forceinline__ int64_t FirstLargest(const T* x) const {
    const int64_t W = g.forward.W;
    const float most = LargestOf<kTeam, N>(x, W);
    int64_t first = W;
    float v[N];
    Team<kTeam>::template ForColumns<N>(0, W, [&](int64_t c) {
      Load(x + c, v);
#pragma unroll
      for (int i = 0; i < N; ++i)
        if (v[i] == most && c + i < first) first = c + i;
    });
    return Team<kTeam>::Min(first);
  }
};

template <class T>
void Reduce(const ReduceArgs<T>& a) {
  ForItems<T>(a.rows() * a.G, a.W, Aligned(a.x), ReduceBody<T>{a});
}
template <class T>
void ReduceGrad(const Gradient<ReduceArgs<T>>& g) {
  const ReduceArgs<T>& a = g.forward;
  ForItems<T>(a.rows() * a.G, a.W, Aligned(a.x) && Aligned(g.d.x), ReduceGradBody<T>{g});
}

}  // namespace

TESSERA_DEVICE_KERNEL_WITH_GRAD(Reduce)

}  // namespace tessera::TESSERA_DEVICE
