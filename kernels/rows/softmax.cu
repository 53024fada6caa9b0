#include "kernels/cuda/team.h"
#include "kernels/rows/softmax.h"

// A team has one group of one row. It goes over the columns that the row sees twice, for the
// largest and the sum together and for the values, the second time from cache; what is not seen is
// not read.

namespace tessera::TESSERA_DEVICE {
namespace {

// Columns [c, c + N) of x where they are in the range, `other` elsewhere.
template <int N, class T, class Range>
__device__ __forceinline__ void LoadSeen(const T* x, int64_t c, const Range& range, float other,
                                         float (&v)[N]) {
  if (c >= range.high || c + N <= range.low) {
#pragma unroll
    for (float& u : v) u = other;
    return;
  }
  Load(x + c, v);
#pragma unroll
  for (int i = 0; i < N; ++i)
    if (c + i < range.low || c + i >= range.high) v[i] = other;
}

template <class T>
struct SoftmaxBody {
  SoftmaxArgs<T> a;
  template <int kTeam, int N>
  __device__ __forceinline__ void Do(int64_t item) const {
    const int64_t row = item / a.G, column = item % a.G * a.W;
    const auto range = a.RangeOf(row);
    const T* const x = a.x.Row(row) + column;
    T* const y = a.y.Row(row) + column;
    float most = -INFINITY, sum = 0, v[N];
    Team<kTeam>::template ForColumns<N>(range.low / N * N, range.high, [&](int64_t c) {
      LoadSeen(x, c, range, 0, v);
      float larger = most;
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const bool seen = c + i >= range.low && c + i < range.high;
        v[i] = seen ? v[i] * a.scale : -INFINITY;
        larger = fmaxf(larger, v[i]);
      }
      if (larger > most) {
        sum *= expf(most - larger);
        most = larger;
      }
#pragma unroll
      for (int i = 0; i < N; ++i)
        if (v[i] != -INFINITY) sum += expf(v[i] - most);
    });
    const float largest = Team<kTeam>::Max(most);
    sum = Team<kTeam>::Sum(most == -INFINITY ? 0 : sum * expf(most - largest));
    const float share = largest == -INFINITY ? 0 : 1 / sum;
    Team<kTeam>::template ForColumns<N>(0, a.W, [&](int64_t c) {
      LoadSeen(x, c, range, 0, v);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const bool seen = c + i >= range.low && c + i < range.high && largest != -INFINITY;
        v[i] = seen ? expf(v[i] * a.scale - largest) * share : 0;
      }
      Store(y + c, v);
    });
  }
};

template <class T>
struct SoftmaxGradBody {
  Gradient<SoftmaxArgs<T>> g;
  template <int kTeam, int N>
  __device__ __forceinline__ void Do(int64_t item) const {
    const SoftmaxArgs<T>& a = g.forward;
    const int64_t row = item / a.G, column = item % a.G * a.W;
    const auto range = a.RangeOf(row);
    const T* const y = a.y.Row(row) + column;
    const T* const dy = g.d.y.Row(row) + column;
    T* const dx = g.d.x.Row(row) + column;
    float dot = 0, v[N], d[N];
    Team<kTeam>::template ForColumns<N>(range.low / N * N, range.high, [&](int64_t c) {
      LoadSeen(y, c, range, 0, v);
      LoadSeen(dy, c, range, 0, d);
#pragma unroll
      for (int i = 0; i < N; ++i) dot += v[i] * d[i];
    });
    dot = Team<kTeam>::Sum(dot);
    Team<kTeam>::template ForColumns<N>(0, a.W, [&](int64_t c) {
      LoadSeen(y, c, range, 0, v);
      LoadSeen(dy, c, range, 0, d);
#pragma unroll
      for (int i = 0; i < N; ++i) v[i] *= (d[i] - dot) * a.scale;
      PutGrad(dx + c, v, g.d.x.mode);
    });
  }
};

template <class T>
void Softmax(const SoftmaxArgs<T>& a) {
  ForItems<T>(a.B * a.T * a.G, a.W, Aligned(a.x) && Aligned(a.y), SoftmaxBody<T>{a});
}
template <class T>
void SoftmaxGrad(const Gradient<SoftmaxArgs<T>>& g) {
  const SoftmaxArgs<T>& a = g.forward;
  ForItems<T>(a.B * a.T * a.G, a.W, Aligned(a.y) && Aligned(g.d.x) && Aligned(g.d.y),
              SoftmaxGradBody<T>{g});
}

}  // namespace

TESSERA_DEVICE_KERNEL_WITH_GRAD(Softmax)

}  // namespace tessera::TESSERA_DEVICE
