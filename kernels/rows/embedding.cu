#include "kernels/layout/row_sums.cuh"
#include "kernels/rows/embedding.h"

namespace tessera::TESSERA_DEVICE {
namespace {

template <class T>
struct EmbeddingBody {
  EmbeddingArgs<T> a;
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t c) const {
    float x[N];
    const int64_t token = a.token[row];
    if (token >= 0 && token < a.V) {
      Load(a.table + token * a.D + c, x);
    } else {
#pragma unroll
      for (float& unknown : x) unknown = NAN;
    }
    Store(a.y + row * a.y_stride + c, x);
  }
};

template <class T>
void Embedding(const EmbeddingArgs<T>& a) {
  // Four at a time: 16 bytes of the table.
  const bool aligned = Aligned(a.table, a.D) && Aligned(a.y, a.y_stride);
  ForElements<float>(a.rows, a.D, aligned, EmbeddingBody<T>{a});
}

template <class T>
void EmbeddingGrad(const EmbeddingGradArgs<T>& a) {
  SumRowsByKey(View<const T>{a.dy, a.dy_stride}, Keys{a.token, 1, a.rows, a.V},
               View<float>{a.dtable, a.D, a.dtable_mode}, a.D);
}

}  // namespace

TESSERA_DEVICE_KERNEL(Embedding)
TESSERA_DEVICE_KERNEL(EmbeddingGrad)

}  // namespace tessera::TESSERA_DEVICE
