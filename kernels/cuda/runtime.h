#ifndef TESSERA_KERNELS_CUDA_RUNTIME_H_
#define TESSERA_KERNELS_CUDA_RUNTIME_H_

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/product/matmul.h"

// The stream that kernels are launched on, and what a failed call becomes: CudaError.

namespace tessera::cuda {

cudaStream_t Stream();
// Memory for partial results between launches, for the life of the object; objects nest. It grows,
// and cannot while a graph is recorded.
class Scratch {
 public:
  explicit Scratch(int64_t count);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  float* floats() const { return floats_; }

 private:
  int64_t count_;
  float* floats_;
};
// As in kernels/cuda/device.h, by CUB.
size_t SortBytes(int64_t count);
void SortRows(const int32_t* keys, int64_t count, int64_t end, int32_t* sorted, int32_t* rows,
              void* scratch);
void Check(cudaError_t result, const std::string& what);
// Lets a kernel have as much dynamic shared memory as the device has for a block; asks the driver
// once a kernel.
void AllowSharedMemory(const void* kernel);
void CheckLaunch(cudaError_t result, dim3 grid, dim3 block, size_t dynamic_shared_bytes);

// Opens cuBLASLt and takes its workspace, which the first product would do otherwise.
void OpenLibrary();
// The product by cuBLASLt. False, and nothing done, where its arguments are not for it: row lists,
// a scale a row, rows of fp32 factors or results that are not aligned to 16 bytes. fp32 is computed
// as fp32, not as TF32; fp32 factors of a bf16 product are rounded first, and a bf16 result's bias.
bool LibraryProduct(const MatmulArgs& m);

// Whether a product is for the warpgroup instructions: on sm_90, where its sizes prefer them or
// TESSERA_WGMMA says so (kernels/device/wgmma.h).
bool UsesWgmma(bool preferred);
CUtensorMap MakeTensorMap(const bf16* data, int64_t columns, int64_t rows, int64_t groups,
                          int64_t row_stride, int64_t group_stride, int box_rows);

}  // namespace tessera::cuda

#endif  // TESSERA_KERNELS_CUDA_RUNTIME_H_
