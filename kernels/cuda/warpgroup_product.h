#ifndef TESSERA_KERNELS_CUDA_WARPGROUP_PRODUCT_H_
#define TESSERA_KERNELS_CUDA_WARPGROUP_PRODUCT_H_

#include "kernels/cuda/device.h"

// One 128 x 128 tile of a bf16 product by sm_90's warpgroup instructions. The first warpgroup of a
// block has one thread that asks the copy engine for pieces of 64 in depth, kStages ahead; the
// other two multiply them, each for 64 rows. A pair of barriers a stage says when it is full and
// when it is free. Sums run along the depth in one order.

namespace tessera::TESSERA_DEVICE {
namespace {

constexpr int kWgTile = 128, kWgDepth = 64, kWgStages = 4, kWgThreads = 384;
constexpr int kWgBox = 64 * 64;  // elements of half a side: 64 by 64
constexpr int kWgStageBytes = 4 * kWgBox * static_cast<int>(sizeof(bf16));
// The stages, and what aligns the first of them.
constexpr int64_t kWgSharedBytes = kWgStages * kWgStageBytes + 1024;

// A side in memory: rows of the outer index (m or n), or rows of k.
struct WgSide {
  int64_t outer, k, group;  // where the tile begins
};

// Descriptor of 64 or 128 outer indices by 16 in depth, from depth `k` of a side on: PTX ISA, wgmma
// "matrix descriptor format"; 128-byte swizzle, in bytes / 16. Stored by the outer index, groups of
// eight rows of 128 bytes are 1024 bytes apart and a step in depth moves along the rows. Stored by
// k, so are groups of eight k, and pieces of 64 outer indices are a box apart.
template <bool kByK>
__device__ __forceinline__ uint64_t WgDescriptor(const bf16* side, int k) {
  constexpr uint64_t kBoxBytes = kWgBox * sizeof(bf16);
  const bf16* const at = kByK ? side + k * 64 : side + k;
  const uint64_t start = (SharedAddress(at) & 0x3ffff) >> 4, leading = kByK ? kBoxBytes >> 4 : 1;
  return start | leading << 16 | uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62;
}

struct WgShared {
  uint64_t *full, *free;  // [kWgStages]
  uint64_t* cleared;
  bf16* stages;
  __device__ __forceinline__ bf16* A(int stage) const { return stages + 4 * stage * kWgBox; }
  __device__ __forceinline__ bf16* B(int stage) const { return A(stage) + 2 * kWgBox; }
};

// Two boxes of 64: of 64 rows each, either way.
template <bool kByK>
__device__ __forceinline__ void WgLoad(bf16* to, const TensorMap& map, const WgSide& s, int64_t k,
                                       uint64_t* full) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int outer = static_cast<int>(s.outer + 64 * half), depth = static_cast<int>(s.k + k);
    tma_load(to + half * kWgBox, map, kByK ? outer : depth, kByK ? depth : outer,
             static_cast<int>(s.group), full);
  }
}

// Zeros the rows of k from `valid` on in all four boxes of a stage, whose sides are stored by k:
// what lies there belongs to others. By the 256 threads that multiply; they go on when all is
// cleared.
__device__ __forceinline__ void WgClear(const WgShared& shared, int stage, int valid) {
  constexpr int kRowWords = 64 * static_cast<int>(sizeof(bf16)) / 4;
  const int thread = static_cast<int>(threadIdx.x) - 128, words = (64 - valid) * kRowWords;
  for (int i = thread; i < 4 * words; i += 256) {
    auto* const box = reinterpret_cast<uint32_t*>(shared.A(stage) + i / words * kWgBox);
    box[valid * kRowWords + i % words] = 0;
  }
  fence_proxy_async();
  mbarrier_arrive(shared.cleared);
  mbarrier_wait(shared.cleared, 0);
}

// put(row, column, sum) for the elements of the tile, rows and columns from 0 on, by the threads
// that have them. `depth` is how far k goes; with kClear rows of k past it are not read as they
// are.
template <bool kAByK, bool kBByK, bool kClear, class Put>
__device__ __forceinline__ void WarpgroupProduct(const TensorMap& a, const TensorMap& b,
                                                 WgSide at_a, WgSide at_b, int64_t depth, Put put) {
  TESSERA_SHARED(uint64_t[kWgStages], full);
  TESSERA_SHARED(uint64_t[kWgStages], free);
  TESSERA_SHARED(uint64_t[1], cleared);
  TESSERA_DYNAMIC_SHARED(unsigned char, memory);
  const uint32_t past = SharedAddress(memory) % 1024;
  const WgShared shared = {full, free, cleared,
                           reinterpret_cast<bf16*>(memory + (past == 0 ? 0 : 1024 - past))};
  if (threadIdx.x == 0) {
    for (int s = 0; s < kWgStages; ++s) {
      mbarrier_init(full + s, 1);
      mbarrier_init(free + s, 8);  // the warps that multiply
    }
    mbarrier_init(cleared, 256);
    fence_mbarrier_init();
  }
  __syncthreads();
  const int steps = static_cast<int>((depth + kWgDepth - 1) / kWgDepth);
  if (threadIdx.x < 128) {
    for (int step = 0; threadIdx.x == 0 && step < steps; ++step) {
      const int stage = step % kWgStages, round = step / kWgStages;
      if (round > 0) mbarrier_wait(free + stage, (round - 1) % 2);
      mbarrier_expect(full + stage, kWgStageBytes);
      WgLoad<kAByK>(shared.A(stage), a, at_a, step * kWgDepth, full + stage);
      WgLoad<kBByK>(shared.B(stage), b, at_b, step * kWgDepth, full + stage);
    }
    return;
  }
  const int half = static_cast<int>(threadIdx.x) / 128 - 1, lane = threadIdx.x % 32;
  float sum[64];
#pragma unroll
  for (int i = 0; i < 64; ++i) sum[i] = 0;
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    const int stage = step % kWgStages;
    mbarrier_wait(full + stage, step / kWgStages % 2);
    if (kClear && depth - step * kWgDepth < kWgDepth)
      WgClear(shared, stage, static_cast<int>(depth - step * kWgDepth));
    wgmma_fence(sum);
#pragma unroll
    for (int k = 0; k < kWgDepth; k += 16)
      wgmma_m64n128k16<kAByK, kBByK>(sum, WgDescriptor<kAByK>(shared.A(stage) + half * kWgBox, k),
                                     WgDescriptor<kBByK>(shared.B(stage), k));
    wgmma_commit();
    // The products of the step before are done, and its stage is free.
    wgmma_wait<1>(sum);
    if (step > 0 && lane == 0) mbarrier_arrive(free + (step - 1) % kWgStages);
  }
  wgmma_wait<0>(sum);
  const int row = 64 * half + static_cast<int>(threadIdx.x) / 32 % 4 * 16 + lane / 4;
#pragma unroll
  for (int i = 0; i < 64; ++i) put(row + i / 2 % 2 * 8, i / 4 * 8 + lane % 4 * 2 + i % 2, sum[i]);
}

}  // namespace
}  // namespace tessera::TESSERA_DEVICE

#endif  // TESSERA_KERNELS_CUDA_WARPGROUP_PRODUCT_H_
