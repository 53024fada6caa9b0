#include "kernels/layout/gather.h"
#include "kernels/layout/row_sums.cuh"

namespace tessera::TESSERA_DEVICE {
namespace {

// A thread has N columns of one row: the floor is the bytes at copy bandwidth.
template <class T>
struct TakeBody {
  View<T> from;
  Keys keys;
  View<T> to;
  const float* count;  // what a row is divided by, or null
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t c) const {
    const int64_t at = keys.At(row);
    float v[N] = {};
    if (at < keys.G * keys.n) {
      Load(from.Row(at) + c, v);
      if (count != nullptr)
        for (float& u : v) u /= count[at];
    }
    PutGrad(to.Row(row) + c, v, to.mode);
  }
};

template <class T>
void TakeRows(const View<T>& from, const Keys& keys, const View<T>& to, int64_t C,
              const float* count = nullptr) {
  ForElements<T>(keys.G * keys.rows, C, Aligned(from) && Aligned(to),
                 TakeBody<T>{from, keys, to, count});
}
template <class Args>
Keys KeysOf(const Args& a) {
  return {a.index.data, a.G, a.rows, a.n};
}
template <class T>
View<const T> ReadOnly(const View<T>& v) {
  return {v.data, v.stride};
}

template <class T>
void Gather(const GatherArgs<T>& a) {
  TakeRows(a.x, KeysOf(a), a.y, a.C);
}
template <class T>
void GatherGrad(const Gradient<GatherArgs<T>>& a) {
  SumRowsByKey(ReadOnly(a.d.y), KeysOf(a.forward), a.d.x, a.forward.C);
}
template <class T>
void Scatter(const ScatterArgs<T>& a) {
  SumRowsByKey(ReadOnly(a.x), KeysOf(a), a.y, a.C, Mean{a.to == ScatterTo::kMean, a.count.data});
}
template <class T>
void ScatterGrad(const Gradient<ScatterArgs<T>>& a) {
  TakeRows(a.d.y, KeysOf(a.forward), a.d.x, a.forward.C, a.forward.count.data);
}

}  // namespace

TESSERA_DEVICE_KERNEL_WITH_GRAD(Gather)
TESSERA_DEVICE_KERNEL_WITH_GRAD(Scatter)

}  // namespace tessera::TESSERA_DEVICE
