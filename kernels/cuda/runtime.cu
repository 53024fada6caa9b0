#include "kernels/cuda/runtime.h"

#include "kernels/device/cuda_device.h"

namespace tessera::cuda {
namespace {

std::string Size(dim3 d) {
  return "(" + std::to_string(d.x) + "," + std::to_string(d.y) + "," + std::to_string(d.z) + ")";
}

}  // namespace

void Check(cudaError_t result, const std::string& what) {
  if (result == cudaSuccess) return;
  cudaGetLastError();  // or the next launch would be blamed for it
  throw CudaError(what + ": " + cudaGetErrorString(result));
}

void CheckLaunch(cudaError_t result, dim3 grid, dim3 block, size_t dynamic_shared_bytes) {
  if (result == cudaSuccess) return;
  Check(result, "a launch of " + Size(grid) + " blocks of " + Size(block) + " threads with " +
                    std::to_string(dynamic_shared_bytes) + " bytes of shared memory");
}

cudaStream_t Stream() {
  static const cudaStream_t stream = [] {
    cudaStream_t s;
    Check(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), "a stream for the kernels");
    return s;
  }();
  return stream;
}

// Allocation and release are in the stream's order, so the kernels that were launched before keep
// what they have.
float* ScratchFloats(int64_t count) {
  static float* buffer = nullptr;
  static int64_t capacity = 0;
  if (count <= capacity) return buffer;
  const size_t bytes = static_cast<size_t>(count) * sizeof(float);
  const std::string what = "scratch memory of " + std::to_string(bytes) + " bytes";
  cudaStreamCaptureStatus status;
  Check(cudaStreamIsCapturing(Stream(), &status), what);
  if (status != cudaStreamCaptureStatusNone)
    throw CudaError(what + " cannot be taken while a graph is recorded");
  if (buffer != nullptr) Check(cudaFreeAsync(buffer, Stream()), what);
  capacity = 0;
  void* grown = nullptr;
  Check(cudaMallocAsync(&grown, bytes, Stream()), what);
  buffer = static_cast<float*>(grown);
  capacity = count;
  return buffer;
}

}  // namespace tessera::cuda
