#include "kernels/optimiser/step.h"
#include "kernels/optimiser/tensor_list.cuh"

namespace tessera::TESSERA_DEVICE {
namespace {

__global__ void __launch_bounds__(kThreads) SquareSumKernel(TensorList list, double* partial) {
  const Part part = PartOf(list);
  double sum = 0;
  ForPart(part.begin, part.end, Aligned16(part.tensor.gradient), [&](int64_t at, auto count) {
    float g[count.value];
    Load(part.tensor.gradient + at, g);
#pragma unroll
    for (const float x : g) sum += static_cast<double>(x) * static_cast<double>(x);
  });
  sum = BlockSum<kThreads>(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// One block: thread t adds partial t, t + 256, ..., then a tree.
__global__ void __launch_bounds__(kThreads) OutcomeKernel(StepOutcomeArgs a) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < a.blocks; i += kThreads) sum += a.partial[i];
  sum = BlockSum<kThreads>(sum);
  if (threadIdx.x != 0) return;
  double loss = 0;
  for (int64_t i = 0; i < a.count; ++i)
    loss += static_cast<double>(a.share[i]) * static_cast<double>(a.loss[i]);
  const double norm = sqrt(sum), clip = a.step->clip;
  a.outcome->loss = loss;
  a.outcome->grad_norm = norm;
  a.outcome->gradient_scale = static_cast<float>(clip > 0 && norm > clip ? clip / norm : 1.0);
  // x - x is 0 for what is finite.
  if (!(loss - loss == 0) || !(norm - norm == 0)) a.outcome->halted = 1;
}

void SquareSum(const SquareSumArgs& a) {
  ForLists(a.tensors, a.count, [&](const TensorList& list, int64_t before) {
    Launch(SquareSumKernel, dim3{static_cast<unsigned>(list.blocks)}, dim3{kThreads}, 0, list,
           a.partial + before);
  });
}

void FindOutcome(const StepOutcomeArgs& a) { Launch(OutcomeKernel, dim3{1}, dim3{kThreads}, 0, a); }

}  // namespace

TESSERA_DEVICE_KERNEL_OF(StepOutcomeArgs, FindOutcome)
TESSERA_DEVICE_KERNEL_OF(SquareSumArgs, SquareSum)

}  // namespace tessera::TESSERA_DEVICE
