#include "kernels/cuda/vector.h"
#include "kernels/layout/pool.h"

// A thread has N columns of one group: each element is read once and written once, neighbours read
// neighbours, and the floor is the bytes at copy bandwidth. Nothing is shared, so no barrier.

namespace tessera::TESSERA_DEVICE {
namespace {

struct Group {
  int64_t first, rows;
};
__device__ __forceinline__ Group GroupAt(int64_t index, int64_t T, int64_t n) {
  const int64_t groups = GroupsOf(T, n), t = index % groups * n;
  return {index / groups * T + t, n < T - t ? n : T - t};
}
__device__ __forceinline__ float Factor(Pooling pooling, int64_t rows) {
  return pooling == Pooling::kMean ? 1 / static_cast<float>(rows) : 1;
}

template <int N, class T>
__device__ __forceinline__ void Reduce(const View<T>& x, const Group& g, int64_t c, bool max,
                                       float (&v)[N]) {
  Load(x.Row(g.first) + c, v);
  for (int64_t r = 1; r < g.rows; ++r) {
    float u[N];
    Load(x.Row(g.first + r) + c, u);
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = max ? fmaxf(v[i], u[i]) : v[i] + u[i];
  }
}

template <class T>
struct PoolBody {
  PoolArgs<T> a;
  template <int N>
  __device__ __forceinline__ void At(int64_t index, int64_t c) const {
    const Group g = GroupAt(index, a.T, a.n);
    float v[N];
    Reduce(a.x, g, c, a.pooling == Pooling::kMax, v);
    const float factor = Factor(a.pooling, g.rows);
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] *= factor;
    Store(a.y.Row(index) + c, v);
  }
};

template <class T>
struct PoolGradBody {
  Gradient<PoolArgs<T>> a;
  template <int N>
  __device__ __forceinline__ void At(int64_t index, int64_t c) const {
    const PoolArgs<T>& f = a.forward;
    const Group g = GroupAt(index, f.T, f.n);
    const bool max = f.pooling == Pooling::kMax;
    const float factor = Factor(f.pooling, g.rows);
    float dy[N], most[N];
    Load(a.d.y.Row(index) + c, dy);
    if (max) Reduce(f.x, g, c, true, most);
#pragma unroll
    for (int i = 0; i < N; ++i) dy[i] *= factor;
    for (int64_t r = 0; r < g.rows; ++r) {
      float x[N], dx[N];
      if (max) Load(f.x.Row(g.first + r) + c, x);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const bool here = !max || x[i] == most[i];
        dx[i] = here ? dy[i] : 0;
        if (max && here) dy[i] = 0;
      }
      PutGrad(a.d.x.Row(g.first + r) + c, dx, a.d.x.mode);
    }
  }
};

template <class T>
struct RepeatBody {
  RepeatArgs<T> a;
  template <int N>
  __device__ __forceinline__ void At(int64_t index, int64_t c) const {
    const Group g = GroupAt(index, a.T, a.n);
    float v[N];
    Load(a.x.Row(index) + c, v);
    for (int64_t r = 0; r < g.rows; ++r) Store(a.y.Row(g.first + r) + c, v);
  }
};

template <class T>
struct RepeatGradBody {
  Gradient<RepeatArgs<T>> a;
  template <int N>
  __device__ __forceinline__ void At(int64_t index, int64_t c) const {
    float v[N];
    Reduce(a.d.y, GroupAt(index, a.forward.T, a.forward.n), c, false, v);
    PutGrad(a.d.x.Row(index) + c, v, a.d.x.mode);
  }
};

template <class T>
void Pool(const PoolArgs<T>& a) {
  ForElements<T>(a.B * GroupsOf(a.T, a.n), a.C, Aligned(a.x) && Aligned(a.y), PoolBody<T>{a});
}
template <class T>
void PoolGrad(const Gradient<PoolArgs<T>>& a) {
  const PoolArgs<T>& f = a.forward;
  ForElements<T>(f.B * GroupsOf(f.T, f.n), f.C, Aligned(f.x) && Aligned(a.d.x) && Aligned(a.d.y),
                 PoolGradBody<T>{a});
}
template <class T>
void Repeat(const RepeatArgs<T>& a) {
  ForElements<T>(a.B * GroupsOf(a.T, a.n), a.C, Aligned(a.x) && Aligned(a.y), RepeatBody<T>{a});
}
template <class T>
void RepeatGrad(const Gradient<RepeatArgs<T>>& a) {
  const RepeatArgs<T>& f = a.forward;
  ForElements<T>(f.B * GroupsOf(f.T, f.n), f.C, Aligned(a.d.x) && Aligned(a.d.y),
                 RepeatGradBody<T>{a});
}

}  // namespace

TESSERA_DEVICE_KERNEL_WITH_GRAD(Pool)
TESSERA_DEVICE_KERNEL_WITH_GRAD(Repeat)

}  // namespace tessera::TESSERA_DEVICE
