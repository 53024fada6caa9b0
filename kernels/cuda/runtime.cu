#include "kernels/cuda/runtime.h"

#include <mutex>
#include <stdexcept>
#include <string>

namespace tessera::cuda {
namespace {

void Check(cudaError_t result, const std::string& what) {
  if (result != cudaSuccess)
    throw std::runtime_error(what + ": " + cudaGetErrorString(result));
}

std::string Size(dim3 d) {
  return "(" + std::to_string(d.x) + "," + std::to_string(d.y) + "," + std::to_string(d.z) + ")";
}

}  // namespace

cudaStream_t Stream() {
  static const cudaStream_t stream = [] {
    cudaStream_t s;
    Check(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), "a stream for the kernels");
    return s;
  }();
  return stream;
}

// One buffer that grows: allocation and release are in the stream's order, so the kernels that were
// launched before keep what they have.
float* ScratchFloats(int64_t count) {
  static std::mutex mutex;
  static float* buffer = nullptr;
  static int64_t capacity = 0;
  const std::lock_guard<std::mutex> lock(mutex);
  if (count <= capacity) return buffer;
  if (buffer != nullptr) Check(cudaFreeAsync(buffer, Stream()), "scratch memory");
  void* grown = nullptr;
  const size_t bytes = static_cast<size_t>(count) * sizeof(float);
  Check(cudaMallocAsync(&grown, bytes, Stream()),
        "scratch memory of " + std::to_string(bytes) + " bytes");
  buffer = static_cast<float*>(grown);
  capacity = count;
  return buffer;
}

void CheckLaunch(cudaError_t result, dim3 grid, dim3 block, size_t dynamic_shared_bytes) {
  if (result == cudaSuccess) return;
  Check(result, "a launch of " + Size(grid) + " blocks of " + Size(block) + " threads with " +
                    std::to_string(dynamic_shared_bytes) + " bytes of shared memory");
}

}  // namespace tessera::cuda
