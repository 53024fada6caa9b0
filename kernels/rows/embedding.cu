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
    const int64_t token = a.token.data[row];
    if (token >= 0 && token < a.V) {
      Load(a.table.Row(token) + c, x);
    } else {
#pragma unroll
      for (float& unknown : x) unknown = NAN;
    }
    Store(a.y.Row(row) + c, x);
  }
};

template <class T>
void Embedding(const EmbeddingArgs<T>& a) {
  // Four at a time: 16 bytes of the table.
  const bool aligned = Aligned(a.table) && Aligned(a.y);
  ForElements<float>(a.rows(), a.D, aligned, EmbeddingBody<T>{a});
}

template <class T>
void EmbeddingGrad(const Gradient<EmbeddingArgs<T>>& g) {
  const EmbeddingArgs<T>& a = g.forward;
  SumRowsByKey(View<const T>{g.d.y.data, g.d.y.stride}, Keys{a.token.data, 1, a.rows(), a.V},
               g.d.table, a.D);
}

}  // namespace

TESSERA_DEVICE_KERNEL_WITH_GRAD(Embedding)

}  // namespace tessera::TESSERA_DEVICE
