#ifndef TESSERA_KERNELS_CUDA_GRID_H_
#define TESSERA_KERNELS_CUDA_GRID_H_

#include "core/check.h"
#include "kernels/cuda/device.h"

// A grid of x by y by z blocks with any number of each. CUDA's own second and third dimension end
// at 65,535, which is fewer than a batch may have rows, so such grids are folded into the first:
// the blocks keep the order that they would have, x fastest.

namespace tessera::TESSERA_DEVICE {
namespace {

inline dim3 FoldedGrid(int64_t x, int64_t y, int64_t z) {
  int64_t blocks = 0;
  TESSERA_CHECK(!__builtin_mul_overflow(x, y, &blocks) &&
                    !__builtin_mul_overflow(blocks, z, &blocks) && blocks <= INT32_MAX,
                "a grid of %ld x %ld x %ld blocks", x, y, z);
  return dim3{static_cast<unsigned>(blocks)};
}

// Where this block stands in a grid whose first two sizes these are.
struct GridPlace {
  int64_t x, y, z;
};
__device__ __forceinline__ GridPlace PlaceInGrid(int64_t x, int64_t y) {
  const auto X = static_cast<unsigned>(x), Y = static_cast<unsigned>(y);
  const unsigned row = blockIdx.x / X;
  return {blockIdx.x % X, row % Y, row / Y};
}

}  // namespace
}  // namespace tessera::TESSERA_DEVICE

#endif  // TESSERA_KERNELS_CUDA_GRID_H_
