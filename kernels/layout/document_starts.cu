#include "kernels/cuda/device.h"
#include "kernels/layout/document_starts.h"

namespace tessera::TESSERA_DEVICE {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr uint32_t kAllLanes = 0xffffffffu;

// Block b: thread t has row t of each run of kThreads rows of batch row b. A start is a running
// maximum, since a later document begins at a later row: over the lanes of a warp, over the warps
// before, and over the runs before. Barriers: a run's maxima are there, and are read by all before
// the next run's.
__global__ void __launch_bounds__(kThreads) DocumentStartsKernel(DocumentStartsArgs a) {
  TESSERA_SHARED(int32_t[kWarps], latest);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int32_t* const position = a.position + blockIdx.x * a.T;
  int32_t before = -position[0];
  for (int64_t t0 = 0; t0 < a.T; t0 += kThreads) {
    const int64_t t = t0 + threadIdx.x;
    int32_t start = t < a.T && position[t] == 0 ? static_cast<int32_t>(t) : before;
#pragma unroll
    for (int by = 1; by < 32; by *= 2) {
      const int32_t other = __shfl_up_sync(kAllLanes, start, by);
      if (lane >= by && other > start) start = other;
    }
    if (lane == 31) latest[warp] = start;
    __syncthreads();
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp && latest[w] > start) start = latest[w];
      if (latest[w] > before) before = latest[w];
    }
    if (t < a.T) a.start[blockIdx.x * a.T + t] = start;
    __syncthreads();
  }
}

void DocumentStarts(const DocumentStartsArgs& a) {
  if (a.B * a.T == 0) return;
  Launch(DocumentStartsKernel, dim3{static_cast<unsigned>(a.B)}, dim3{kThreads}, 0, a);
}

}  // namespace

TESSERA_DEVICE_KERNEL_OF(DocumentStartsArgs, DocumentStarts)

}  // namespace tessera::TESSERA_DEVICE
