#include "kernels/cuda/vector.h"
#include "kernels/embedding.h"

namespace tessera::TESSERA_DEVICE {
namespace {

template <class T>
struct EmbeddingBody {
  EmbeddingArgs<T> a;
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t c) const {
    float x[N];
    Load(a.table + a.token[row] * a.D + c, x);
    Store(a.y + row * a.y_stride + c, x);
  }
};

template <class T>
void Embedding(const EmbeddingArgs<T>& a) {
  // Four at a time: 16 bytes of the table.
  const bool aligned = Aligned(a.table, a.D) && Aligned(a.y, a.y_stride);
  ForElements<float>(a.rows, a.D, aligned, EmbeddingBody<T>{a});
}

constexpr int kThreads = 256;

// Block v sums the rows of token v. All threads look for the token, kThreads rows at a time, and
// list the rows where it stands, in order; then each thread adds those rows' columns threadIdx.x,
// + kThreads, ... The order of the rows is kept, so sums have the same bits each time. Barriers:
// the list is whole before it is read, and read before the next one is written.
template <class T>
__global__ void __launch_bounds__(kThreads) EmbeddingGradKernel(EmbeddingGradArgs<T> a) {
  TESSERA_SHARED(int[kThreads / 32], found);
  TESSERA_SHARED(int32_t[kThreads], list);
  const int64_t v = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  float* to = a.dtable + v * a.D;
  if (a.dtable_mode == Grad::kOverwrite)
    for (int64_t c = thread; c < a.D; c += kThreads) to[c] = 0;
  for (int64_t first = 0; first < a.rows; first += kThreads) {
    const bool here = first + thread < a.rows && a.token[first + thread] == v;
    const uint32_t votes = __ballot_sync(0xffffffffu, here);
    if (lane == 0) found[warp] = __popc(votes);
    __syncthreads();
    int before = 0, count = 0;
    for (int w = 0; w < kThreads / 32; ++w) {
      if (w < warp) before += found[w];
      count += found[w];
    }
    if (here) list[before + __popc(votes & ((1u << lane) - 1))] = thread;
    __syncthreads();
    for (int64_t c = thread; count > 0 && c < a.D; c += kThreads) {
      float sum = to[c];
      for (int i = 0; i < count; ++i) sum += ToFloat(a.dy[(first + list[i]) * a.dy_stride + c]);
      to[c] = sum;
    }
    __syncthreads();
  }
}

template <class T>
void EmbeddingGrad(const EmbeddingGradArgs<T>& a) {
  Launch(EmbeddingGradKernel<T>, dim3{static_cast<unsigned>(a.V)}, dim3{kThreads}, 0, a);
}

}  // namespace

TESSERA_DEVICE_KERNEL(Embedding)
TESSERA_DEVICE_KERNEL(EmbeddingGrad)

}  // namespace tessera::TESSERA_DEVICE
