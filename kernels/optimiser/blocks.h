#ifndef TESSERA_KERNELS_OPTIMISER_BLOCKS_H_
#define TESSERA_KERNELS_OPTIMISER_BLOCKS_H_

#include "core/parallel.h"
#include "kernels/cpu/simd.h"
#include "kernels/optimiser/step.h"

namespace tessera::TESSERA_ISA {
namespace {

// body(block, tensor, begin, end) for every block of every tensor.
template <class Body>
void ForBlocks(const OptimizerTensor* tensors, int64_t count, Body&& body) {
  ParallelFor(OptimizerBlocks(tensors, count), [&](int64_t block) {
    int64_t i = 0, first = 0;
    for (;; ++i) {
      const int64_t blocks = OptimizerBlocks(tensors[i].size);
      if (block < first + blocks) break;
      first += blocks;
    }
    const int64_t begin = (block - first) * kOptimizerBlock;
    const int64_t end = begin + kOptimizerBlock;
    body(block, tensors[i], begin, end < tensors[i].size ? end : tensors[i].size);
  });
}

// body(tensor, i, n) for every vector of n elements from element i on.
template <class Body>
void ForVectors(const OptimizerTensor* tensors, int64_t count, Body&& body) {
  ForBlocks(tensors, count, [&](int64_t, const OptimizerTensor& t, int64_t begin, int64_t end) {
    ForLanes(end - begin, [&](int64_t at, int n) { body(t, begin + at, n); });
  });
}

}  // namespace
}  // namespace tessera::TESSERA_ISA

#endif  // TESSERA_KERNELS_OPTIMISER_BLOCKS_H_
