#ifndef TESSERA_KERNELS_CUDA_HARDWARE_H_
#define TESSERA_KERNELS_CUDA_HARDWARE_H_

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "core/dtype.h"
#include "kernels/cuda/runtime.h"

// What kernels/cuda/device.h adds to CUDA's own names, on a GPU (sm_80 and later). What each
// instruction does is spelt out in kernels/simt/device.h.

#define TESSERA_SHARED(type, name) __shared__ __align__(16) std::type_identity_t<type> name
#define TESSERA_DYNAMIC_SHARED(type, name)                                 \
  extern __shared__ __align__(128) unsigned char tessera_dynamic_shared[]; \
  type* name = reinterpret_cast<type*>(tessera_dynamic_shared)

namespace tessera::cuda {

using Dim3 = dim3;
__device__ __forceinline__ uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
__device__ __forceinline__ void CopyAsync16(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(SharedAddress(shared)),
               "l"(global));
}
__device__ __forceinline__ void CopyAsyncCommit() { asm volatile("cp.async.commit_group;"); }
template <int kGroupsLeft>
__device__ __forceinline__ void CopyAsyncWaitFor() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroupsLeft) : "memory");
}
__device__ __forceinline__ void LoadMatrix4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(row))
               : "memory");
}
__device__ __forceinline__ void LoadMatrix4Transposed(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(row))
               : "memory");
}
__device__ __forceinline__ void MmaBf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                        uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <class... Parameters, class... Arguments>
void Launch(void (*kernel)(Parameters...), Dim3 grid, Dim3 block, size_t dynamic_shared_bytes,
            Arguments&&... arguments) {
  // Beyond 48 KiB a kernel has to ask.
  if (dynamic_shared_bytes > 48 * 1024)
    CheckLaunch(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     static_cast<int>(dynamic_shared_bytes)),
                grid, block, dynamic_shared_bytes);
  kernel<<<grid, block, dynamic_shared_bytes, Stream()>>>(
      static_cast<Parameters>(std::forward<Arguments>(arguments))...);
  CheckLaunch(cudaGetLastError(), grid, block, dynamic_shared_bytes);
}

}  // namespace tessera::cuda

#endif  // TESSERA_KERNELS_CUDA_HARDWARE_H_
