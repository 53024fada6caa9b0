#include "kernels/cuda/vector.h"
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

struct ZeroBody {
  float* y;
  int64_t stride;
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t c) const {
    const float zero[N] = {};
    Store(y + row * stride + c, zero);
  }
};

// What rows are sorted by: their token, or V where that is in no vocabulary.
struct KeyBody {
  const int32_t* token;
  int64_t V;
  int32_t* key;
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t) const {
    const bool known = token[row] >= 0 && token[row] < V;
    key[row] = known ? token[row] : static_cast<int32_t>(V);
  }
};

constexpr int kThreads = 128, kAtOnce = 8;

// Block i sums the rows of the token that stands at place i of the sorted ones, if it is the first
// of its kind there: N columns a thread, the rows in their order, so that sums have the same bits
// each time. Several are loaded before they are added, since one after another each would wait for
// memory.
template <int N, class T>
__global__ void __launch_bounds__(kThreads)
    EmbeddingGradKernel(EmbeddingGradArgs<T> a, const int32_t* sorted, const int32_t* rows) {
  const int64_t first = blockIdx.x;
  const int32_t token = sorted[first];
  if (token >= a.V || (first > 0 && sorted[first - 1] == token)) return;
  for (int64_t c = N * int64_t{threadIdx.x}; c < a.D; c += N * kThreads) {
    float sum[N] = {};
    bool more = true;
    for (int64_t i = first; more; i += kAtOnce) {
      float dy[kAtOnce][N];
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        more = more && i + j < a.rows && sorted[i + j] == token;
        if (more) {
          Load(a.dy + rows[i + j] * a.dy_stride + c, dy[j]);
        } else {
#pragma unroll
          for (float& x : dy[j]) x = 0;
        }
      }
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j)
#pragma unroll
        for (int n = 0; n < N; ++n) sum[n] += dy[j][n];
    }
    float* const to = a.dtable + token * a.D + c;
#pragma unroll
    for (int n = 0; n < N; ++n) to[n] += sum[n];
  }
}

template <class T>
void EmbeddingGrad(const EmbeddingGradArgs<T>& a) {
  if (a.dtable_mode == Grad::kOverwrite)
    ForElements<float>(a.V, a.D, Aligned(a.dtable, a.D), ZeroBody{a.dtable, a.D});
  if (a.rows == 0) return;
  const int64_t padded = CeilDivide(a.rows, 64) * 64;
  const auto sort_floats = static_cast<int64_t>(SortBytes(a.rows) / sizeof(float)) + 1;
  const int64_t floats = 3 * padded + sort_floats, foreseen = a.CudaScratch();
  const Scratch scratch(floats > foreseen ? floats : foreseen);
  auto* const sorted = reinterpret_cast<int32_t*>(scratch.floats());
  int32_t *const rows = sorted + padded, *const keys = rows + padded;
  ForElements<float>(a.rows, 1, false, KeyBody{a.token, a.V, keys});
  SortRows(keys, a.rows, a.V + 1, sorted, rows, keys + padded);
  const bool wide = a.D % kVector<T> == 0 && Aligned(a.dy, a.dy_stride);
  Launch(wide ? EmbeddingGradKernel<kVector<T>, T> : EmbeddingGradKernel<1, T>,
         dim3{static_cast<unsigned>(a.rows)}, dim3{kThreads}, 0, a, sorted, rows);
}

}  // namespace

TESSERA_DEVICE_KERNEL(Embedding)
TESSERA_DEVICE_KERNEL(EmbeddingGrad)

}  // namespace tessera::TESSERA_DEVICE
