#include <unordered_set>

#include "kernels/cuda/runtime.h"
#include "kernels/device/scratch_stack.h"
#include "kernels/device/wgmma.h"

namespace tessera::cuda {
namespace {

std::string Size(dim3 d) {
  return "(" + std::to_string(d.x) + "," + std::to_string(d.y) + "," + std::to_string(d.z) + ")";
}

ScratchStack& TheScratch() {
  static ScratchStack stack;
  return stack;
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

Scratch::Scratch(int64_t count) : count_(count) {
  floats_ = TheScratch().Take(count, [](int64_t floats) {
    const size_t bytes = static_cast<size_t>(floats) * sizeof(float);
    const std::string what = "scratch memory of " + std::to_string(bytes) + " bytes";
    cudaStreamCaptureStatus status;
    Check(cudaStreamIsCapturing(Stream(), &status), what);
    if (status != cudaStreamCaptureStatusNone)
      throw CudaError(what + " cannot be taken while a graph is recorded");
    void* taken = nullptr;
    Check(cudaMalloc(&taken, bytes), what);
    return static_cast<float*>(taken);
  });
}
Scratch::~Scratch() { TheScratch().GiveBack(count_); }

void AllowSharedMemory(const void* kernel) {
  static std::unordered_set<const void*> allowed;
  if (allowed.count(kernel) > 0) return;
  int device = 0, most = 0;
  cudaFuncAttributes attributes;
  Check(cudaGetDevice(&device), "the device");
  Check(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
        "its shared memory");
  Check(cudaFuncGetAttributes(&attributes, kernel), "a kernel's attributes");
  Check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             most - static_cast<int>(attributes.sharedSizeBytes)),
        "shared memory for a kernel");
  allowed.insert(kernel);
}

bool UsesWgmma(bool preferred) {
  static const bool there = [] {
    int device = 0, major = 0;
    Check(cudaGetDevice(&device), "the device");
    Check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "its kind");
    return major == 9;
  }();
  const WgmmaUse use = WgmmaUseOfEnvironment();
  return there && (use == WgmmaUse::kAuto ? preferred : use == WgmmaUse::kAlways);
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
