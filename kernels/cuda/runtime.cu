#include <algorithm>

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

// What was given before is kept, since graphs hold its address; growing at least to twice the size
// bounds what is lost by that.
float* ScratchFloats(int64_t count) {
  static float* buffer = nullptr;
  static int64_t capacity = 0;
  if (count <= capacity) return buffer;
  const int64_t grown = std::max(count, 2 * capacity);
  const size_t bytes = static_cast<size_t>(grown) * sizeof(float);
  const std::string what = "scratch memory of " + std::to_string(bytes) + " bytes";
  cudaStreamCaptureStatus status;
  Check(cudaStreamIsCapturing(Stream(), &status), what);
  if (status != cudaStreamCaptureStatusNone)
    throw CudaError(what + " cannot be taken while a graph is recorded");
  void* taken = nullptr;
  Check(cudaMalloc(&taken, bytes), what);
  buffer = static_cast<float*>(taken);
  capacity = grown;
  return buffer;
}

bool PrefersWgmma(int64_t rows) {
  constexpr int64_t kLeastRows = 512;
  static const bool there = [] {
    int device = 0, major = 0;
    Check(cudaGetDevice(&device), "the device");
    Check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "its kind");
    return major == 9;
  }();
  return there && rows >= kLeastRows;
}

CUtensorMap MakeTensorMap(const bf16* data, int64_t columns, int64_t rows, int64_t groups,
                          int64_t row_stride, int64_t group_stride, int box_rows) {
  // The driver's function, found at run time: the library is not linked to the driver.
  using Encode = decltype(&cuTensorMapEncodeTiled);
  static const Encode encode = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result;
    Check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                           cudaEnableDefault, &result),
          "cuTensorMapEncodeTiled");
    if (found == nullptr) throw CudaError("this driver has no cuTensorMapEncodeTiled");
    return reinterpret_cast<Encode>(found);
  }();
  CUtensorMap map;
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows),
                              static_cast<cuuint64_t>(groups)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(row_stride) * sizeof(bf16),
                                static_cast<cuuint64_t>(group_stride) * sizeof(bf16)};
  const cuuint32_t box[] = {64, static_cast<cuuint32_t>(box_rows), 1}, steps[] = {1, 1, 1};
  const CUresult made =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<bf16*>(data), sizes, strides,
             box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (made != CUDA_SUCCESS)
    throw CudaError("a tensor map of " + std::to_string(groups) + " x " + std::to_string(rows) +
                    " x " + std::to_string(columns) + ": driver error " + std::to_string(made));
  return map;
}

}  // namespace tessera::cuda
