#ifndef TESSERA_KERNELS_CUDA_RUNTIME_H_
#define TESSERA_KERNELS_CUDA_RUNTIME_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

// The stream that kernels are launched on, and what a failed launch becomes.

namespace tessera::cuda {

cudaStream_t Stream();
float* ScratchFloats(int64_t count);
void CheckLaunch(cudaError_t result, dim3 grid, dim3 block, size_t dynamic_shared_bytes);

}  // namespace tessera::cuda

#endif  // TESSERA_KERNELS_CUDA_RUNTIME_H_
