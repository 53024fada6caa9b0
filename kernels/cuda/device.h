#ifndef TESSERA_KERNELS_CUDA_DEVICE_H_
#define TESSERA_KERNELS_CUDA_DEVICE_H_

// The device as a kernel sees it: CUDA's own names (threadIdx, __syncthreads, __shfl_xor_sync, ...)
// and these, which nvcc turns into the hardware's instructions and the host compiler into calls of
// the executor (kernels/simt). A kernels/x.cu includes this, never a header of CUDA's, and puts its
// code in namespace tessera::TESSERA_DEVICE.
//
//   TESSERA_SHARED(float[32], sums)          a __shared__ variable, 16-byte aligned
//   TESSERA_DYNAMIC_SHARED(float, tile)      the shared memory that the launch asked for
//   Launch(kernel, Dim3 grid, Dim3 block, dynamic_shared_bytes, arguments...)
//   ScratchFloats(count)                     memory for partial results between launches
//   CopyAsync16 CopyAsyncCommit CopyAsyncWaitFor<n>                  cp.async
//   LoadMatrix4 LoadMatrix4Transposed MmaBf16                        ldmatrix, mma.sync
//
// The one place where the code asks which compiler reads it.
#if defined(__CUDACC__)
#define TESSERA_DEVICE cuda
#include "kernels/cuda/hardware.h"
#else
#define TESSERA_DEVICE simt
#include "kernels/simt/device.h"
#endif

// The doors of the two: each kernels/x.cu specialises Run for the arguments that it serves.
namespace tessera::TESSERA_DEVICE {
template <class Args>
void Run(const Args& args);
}

#define TESSERA_DEVICE_KERNEL_OF(Args, Function) \
  template <>                                    \
  void Run(const Args& args) {                   \
    Function(args);                              \
  }
#define TESSERA_DEVICE_KERNEL(Op)               \
  TESSERA_DEVICE_KERNEL_OF(Op##Args<float>, Op) \
  TESSERA_DEVICE_KERNEL_OF(Op##Args<bf16>, Op)

#endif  // TESSERA_KERNELS_CUDA_DEVICE_H_
