#ifndef TESSERA_KERNELS_CUDA_DEVICE_H_
#define TESSERA_KERNELS_CUDA_DEVICE_H_

// What a kernel includes, and the only place that asks which compiler it is. Kernels are CUDA C++
// in namespace tessera. nvcc builds them for the GPU; the host's compiler builds the same text
// against kernels/simt/, which runs it without a GPU or its toolkit and finds what would be a race,
// a hang or a wild access there. CUDA's own names (threadIdx, __syncthreads, __shfl_*_sync, votes,
// matches, reductions, atomics) are as in CUDA. The rest:
//
//   TESSERA_SHARED(float[32], sums);        // a shared variable, 16-byte aligned
//   TESSERA_DYNAMIC_SHARED(bf16, tile);     // bf16* tile: Launch's shared_bytes, 128-byte aligned
//   float ToFloat(bf16);  bf16 ToBf16(float);   // by the GPU's own instruction
//   float ToFloat(float);  T FromFloat<T>(float);   // for code generic over the two
//   uint32_t PackBf16(float low, float high);   // two in a register, as fragments hold them
//   uint32_t ToTf32(float);                     // rounded to nearest, ties away from zero
//   float Exp2(float);                // 2^x by the GPU's own instruction: 2 ulp, subnormals are 0
//   void cp_async16(void* to, const void* from, int valid_bytes = 16);
//     // global to shared memory, both aligned to 16; bytes past the valid ones become 0
//   void cp_async_commit();                 // closes a group of this thread's copies
//   void cp_async_wait<n>();                // until at most n of its groups are in flight; the
//                                           // copies of other threads need a __syncthreads too
//   void ldmatrix_x4(uint32_t (&r)[4], const void* row);   // and ldmatrix_x4_trans: four 8 x 8
//     // matrices of 16 bits; lane l names row l % 8 of matrix l / 8 and gets, of each matrix m,
//     // elements (l / 4, 2 (l % 4)) and the next, or of its transpose, in r[m]
//   void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
//     // d[16, 8] += a[16, 16] b[16, 8] by the warp: PTX mma.sync.m16n8k16; mma_fp16 likewise
//   void mma_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
//     // d[16, 8] += a[16, 8] b[8, 8]: PTX mma.sync.m16n8k8
//   What sm_90 adds (PTX ISA: mbarrier, cp.async.bulk.tensor, wgmma). For kernels that are launched
//   where UsesWgmma(preferred) says so; elsewhere they trap:
//   TensorMap MakeTensorMap(const bf16* data, columns, rows, groups, row_stride, group_stride,
//                           int box_rows);
//     // by the host: `groups` matrices, strides in elements and multiples of 8, data aligned to 16
//     // bytes. A kernel takes it as TESSERA_GRID_CONSTANT TensorMap
//   void mbarrier_init(uint64_t* barrier, int arrivals);   // one thread, then
//   fence_mbarrier_init()
//     // and __syncthreads
//   void mbarrier_arrive(uint64_t* barrier);
//   void mbarrier_expect(uint64_t* barrier, int bytes);    // arrives, and the phase waits for
//   bytes void mbarrier_wait(uint64_t* barrier, uint32_t parity);   // until the phase of that
//   parity is
//     // over; phases count from 0
//   void tma_load(void* to, const TensorMap&, int column, int row, int group, uint64_t* barrier);
//     // box_rows x 64 elements to shared memory, aligned to 1024 bytes, 128 bytes a row with the
//     // 128-byte swizzle, zeros outside the matrix; counts its bytes on the barrier
//   void fence_proxy_async();   // by a thread that wrote what wgmma will read
//   uint32_t SharedAddress(const void* p);
//   void wgmma_m64n128k16<kAByK, kBByK>(float (&d)[64], uint64_t a, uint64_t b);
//     // d[64, 128] += a[64, 16] b[16, 128] by the four warps of a warpgroup; a and b are
//     descriptors
//     // of shared memory (kernels/cuda/warpgroup_product.h); ByK: stored by rows of k, not of m or
//     // n. wgmma_fence(d) after the thread touched d and before the next; then wgmma_commit() and
//     // wgmma_wait<n>(d), as cp_async's, before it touches d again
//   void CheckAligned(const void* p, size_t bytes);   // on the host: an access of so many at once
//   void Launch(kernel, dim3 grid, dim3 block, int64_t shared_bytes, arguments...);
//   Scratch scratch(int64_t count);   // scratch.floats(): device memory for partial results
//   between
//     // launches, aligned to 256 bytes; contents undefined, its own until the object dies
//   size_t SortBytes(int64_t count);
//   void SortRows(const int32_t* keys, int64_t count, int64_t end, int32_t* sorted, int32_t* rows,
//                 void* scratch);
//     // rows: 0 .. count - 1 by ascending key in [0, end), equal keys in their order; sorted: the
//     // keys so. By CUB on the GPU. SortBytes of scratch memory, aligned to 256 bytes
//   bool LibraryProduct(const MatmulArgs&);  // the GPU's own library does the product, or says
//   that
//     it does not; on the host it never does
//
// A kernels/x.cu puts its code in namespace tessera::TESSERA_DEVICE and ends with the Args that it
// serves: TESSERA_DEVICE_KERNEL(RmsNorm) for RmsNormArgs<float> and RmsNormArgs<bf16>.

#ifdef __CUDACC__
#define TESSERA_DEVICE cuda
#include "kernels/cuda/nvidia.h"
#else
#define TESSERA_DEVICE simt_device
#include "kernels/simt/device.h"
namespace tessera {
using namespace simt::device;
}
#endif

#include <type_traits>

#include "kernels/cuda/registry.h"

namespace tessera {

// For code that is generic over float and bf16, as ToFloat is.
template <class T>
__device__ __forceinline__ T FromFloat(float x) {
  if constexpr (std::is_same_v<T, float>)
    return x;
  else
    return ToBf16(x);
}

}  // namespace tessera

#define TESSERA_DEVICE_KERNEL_OF(Args, Function) \
  const KernelEntry TESSERA_KERNEL_NAME(__COUNTER__)(KernelOf<Args, Function>{});
#define TESSERA_DEVICE_KERNEL(Op)               \
  TESSERA_DEVICE_KERNEL_OF(Op##Args<float>, Op) \
  TESSERA_DEVICE_KERNEL_OF(Op##Args<bf16>, Op)

#define TESSERA_DEVICE_KERNEL_WITH_GRAD(Op)                     \
  TESSERA_DEVICE_KERNEL(Op)                                     \
  TESSERA_DEVICE_KERNEL_OF(Gradient<Op##Args<float>>, Op##Grad) \
  TESSERA_DEVICE_KERNEL_OF(Gradient<Op##Args<bf16>>, Op##Grad)

#endif  // TESSERA_KERNELS_CUDA_DEVICE_H_
