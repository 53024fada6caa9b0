#include "kernels/cuda/vector.h"
#include "kernels/pointwise/copy.h"

namespace tessera::TESSERA_DEVICE {
namespace {

template <class T>
struct CopyBody {
  CopyArgs<T> a;
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t c) const {
    const float scale = a.factor * (a.scaled ? *a.scale : 1);
    float x[N];
    if (a.ones) {
#pragma unroll
      for (float& one : x) one = 1;
    } else {
      Load(a.x + row * a.x_stride + c, x);
    }
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] *= scale;
    PutGrad(a.y + row * a.y_stride + c, x, a.mode);
  }
};

template <class T>
void Copy(const CopyArgs<T>& a) {
  ForElements<T>(a.rows, a.C, (a.ones || Aligned(a.x, a.x_stride)) && Aligned(a.y, a.y_stride),
                 CopyBody<T>{a});
}

}  // namespace

TESSERA_DEVICE_KERNEL(Copy)

}  // namespace tessera::TESSERA_DEVICE
