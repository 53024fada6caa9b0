#include "kernels/cuda/device.h"
#include "kernels/layout/documents.h"

namespace tessera::TESSERA_DEVICE {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr uint32_t kAllLanes = 0xffffffffu;

// A block: thread i has row i of each run of kThreads rows. use(row, the largest of `before` and of
// value(0) .. value(row)): over the lanes of a warp, over the warps before, and over the runs
// before. Barriers: a run's maxima are there, and are read by all before the next run's.
template <class Value, class Use>
__device__ __forceinline__ void RunningMax(int64_t rows, int32_t before, Value value, Use use) {
  TESSERA_SHARED(int32_t[kWarps], largest);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  for (int64_t first = 0; first < rows; first += kThreads) {
    const int64_t row = first + threadIdx.x;
    int32_t most = row < rows && value(row) > before ? value(row) : before;
#pragma unroll
    for (int by = 1; by < 32; by *= 2) {
      const int32_t other = __shfl_up_sync(kAllLanes, most, by);
      if (lane >= by && other > most) most = other;
    }
    if (lane == 31) largest[warp] = most;
    __syncthreads();
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp && largest[w] > most) most = largest[w];
      if (largest[w] > before) before = largest[w];
    }
    if (row < rows) use(row, most);
    __syncthreads();
  }
}

// Block b has batch row b. A later document begins at a later row, so that a start is a maximum of
// what was before it.
__global__ void __launch_bounds__(kThreads) DocumentStartsKernel(DocumentStartsArgs a) {
  const int32_t* const position = a.position.Row(blockIdx.x);
  int32_t* const start = a.start.Row(blockIdx.x);
  RunningMax(
      a.T, -position[0],
      [&](int64_t t) { return position[t] == 0 ? static_cast<int32_t>(t) : -position[0]; },
      [&](int64_t t, int32_t row) { start[t] = row; });
}

// Block b has batch row b. From the last row to the first an end is the least row behind it at
// which a document begins: a maximum of the negated ones.
__global__ void __launch_bounds__(kThreads) DocumentEndsKernel(DocumentEndsArgs a) {
  const int32_t* const start = a.start.Row(blockIdx.x);
  int32_t* const end = a.end.Row(blockIdx.x);
  const int32_t none = static_cast<int32_t>(-a.T);
  RunningMax(
      a.T, none,
      [&](int64_t back) {
        const int64_t behind = a.T - back;
        return behind < a.T && start[behind] == behind ? static_cast<int32_t>(-behind) : none;
      },
      [&](int64_t back, int32_t row) { end[a.T - 1 - back] = -row; });
}

void DocumentStarts(const DocumentStartsArgs& a) {
  if (a.B * a.T == 0) return;
  Launch(DocumentStartsKernel, dim3{static_cast<unsigned>(a.B)}, dim3{kThreads}, 0, a);
}

void DocumentEnds(const DocumentEndsArgs& a) {
  if (a.B * a.T == 0) return;
  Launch(DocumentEndsKernel, dim3{static_cast<unsigned>(a.B)}, dim3{kThreads}, 0, a);
}

}  // namespace

TESSERA_DEVICE_KERNEL_OF(DocumentStartsArgs, DocumentStarts)
TESSERA_DEVICE_KERNEL_OF(DocumentEndsArgs, DocumentEnds)

}  // namespace tessera::TESSERA_DEVICE
