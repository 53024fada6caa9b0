#ifndef TESSERA_KERNELS_OPTIMISER_TENSOR_LIST_CUH_
#define TESSERA_KERNELS_OPTIMISER_TENSOR_LIST_CUH_

#include "kernels/cuda/reduce.h"
#include "kernels/optimiser/step.h"

namespace tessera::TESSERA_DEVICE {
namespace {

constexpr int kThreads = 256;

// Tensors of one launch, by value in its arguments, so that the list needs no memory of the device.
// Block b works on block `b - first_block[i]` of the last tensor i with first_block[i] <= b.
constexpr int kTensors = 48;
struct TensorList {
  OptimizerTensor tensor[kTensors];
  int32_t first_block[kTensors];
  int count = 0;
  int64_t blocks = 0;
};

struct Part {
  OptimizerTensor tensor;
  int64_t begin, end;
};
__device__ __forceinline__ Part PartOf(const TensorList& list) {
  int i = 0;
  while (i + 1 < list.count && list.first_block[i + 1] <= static_cast<int32_t>(blockIdx.x)) ++i;
  const int64_t begin = (static_cast<int32_t>(blockIdx.x) - list.first_block[i]) * kOptimizerBlock;
  const int64_t end = begin + kOptimizerBlock, size = list.tensor[i].size;
  return {list.tensor[i], begin, end < size ? end : size};
}

// each(element, constant: how many from there on) for this thread's elements of a part: four at a
// time where they can be loaded at once.
template <class Each>
__device__ __forceinline__ void ForPart(int64_t begin, int64_t end, bool aligned, Each each) {
  const int64_t fours = aligned ? (end - begin) / 4 : 0;
  for (int64_t i = threadIdx.x; i < fours; i += kThreads)
    each(begin + 4 * i, std::integral_constant<int, 4>{});
  for (int64_t i = begin + 4 * fours + threadIdx.x; i < end; i += kThreads)
    each(i, std::integral_constant<int, 1>{});
}
// A null pointer is.
__device__ __forceinline__ bool Aligned16(const void* p) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0;
}
__device__ __forceinline__ bool Aligned16(const OptimizerTensor& t) {
  return Aligned16(t.parameter) && Aligned16(t.gradient) && Aligned16(t.first_state) &&
         Aligned16(t.second_state);
}

// use(list, blocks before it) for the tensors in lists of at most kTensors.
template <class Use>
void ForLists(const OptimizerTensor* tensors, int64_t count, Use&& use) {
  int64_t before = 0;
  for (int64_t first = 0; first < count; first += kTensors) {
    TensorList list;
    for (int64_t i = first; i < count && i < first + kTensors; ++i) {
      list.tensor[list.count] = tensors[i];
      list.first_block[list.count++] = static_cast<int32_t>(list.blocks);
      list.blocks += OptimizerBlocks(tensors[i].size);
    }
    if (list.blocks > 0) use(list, before);
    before += list.blocks;
  }
}

}  // namespace
}  // namespace tessera::TESSERA_DEVICE

#endif  // TESSERA_KERNELS_OPTIMISER_TENSOR_LIST_CUH_
