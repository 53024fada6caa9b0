#include "kernels/cross_entropy.h"
#include "kernels/cuda/reduce.h"

namespace tessera::TESSERA_DEVICE {
namespace {

constexpr int kThreads = 256;

// One block: a count and a sum over the rows, by fixed trees.
__global__ void __launch_bounds__(kThreads) TargetWeightKernel(TargetWeightArgs a) {
  int count = 0;
  for (int64_t r = threadIdx.x; r < a.rows; r += kThreads) count += a.target[r] >= 0 ? 1 : 0;
  count = BlockSum<kThreads>(count);
  if (threadIdx.x == 0) a.weight[0] = count == 0 ? 0 : static_cast<float>(1.0 / count);
}

__global__ void __launch_bounds__(kThreads) LossSumKernel(LossSumArgs a) {
  double sum = 0;
  for (int64_t r = threadIdx.x; r < a.rows; r += kThreads) sum += a.nll[r];
  sum = BlockSum<kThreads>(sum);
  if (threadIdx.x == 0) a.loss[0] = static_cast<float>(sum * a.weight[0]);
}

// A block a row. Each thread keeps the running maximum and sum of its columns; together they give
// those of the row, and a second pass writes the gradient. The row is read twice, from cache the
// second time, and written once.
__global__ void __launch_bounds__(kThreads) CrossEntropyKernel(CrossEntropyArgs a) {
  const int64_t row = blockIdx.x;
  float* const l = a.logits + row * a.V;
  const int64_t target = a.target[row];
  if (target < 0) {  // the whole block
    if (threadIdx.x == 0) a.nll[row] = 0;
    for (int64_t c = threadIdx.x; a.gradient && c < a.V; c += kThreads) l[c] = 0;
    return;
  }
  float most = -INFINITY, sum = 0;
  for (int64_t c = threadIdx.x; c < a.V; c += kThreads) {
    const float x = l[c];
    if (x > most) {
      sum = sum * expf(most - x) + 1;
      most = x;
    } else {
      sum += expf(x - most);
    }
  }
  const float largest = BlockMax<kThreads>(most);
  sum = BlockSum<kThreads>(most == -INFINITY ? sum : sum * expf(most - largest));
  // The thread that reads the target's logit is the one that overwrites it below.
  if (threadIdx.x == target % kThreads) a.nll[row] = logf(sum) - (l[target] - largest);
  if (!a.gradient) return;
  const float weight = a.weight[0], scale = weight / sum;
  for (int64_t c = threadIdx.x; c < a.V; c += kThreads)
    l[c] = expf(l[c] - largest) * scale - (c == target ? weight : 0);
}

void TargetWeight(const TargetWeightArgs& a) {
  Launch(TargetWeightKernel, dim3{1}, dim3{kThreads}, 0, a);
}
void CrossEntropy(const CrossEntropyArgs& a) {
  if (a.rows == 0) return;
  Launch(CrossEntropyKernel, dim3{static_cast<unsigned>(a.rows)}, dim3{kThreads}, 0, a);
}
void LossSum(const LossSumArgs& a) { Launch(LossSumKernel, dim3{1}, dim3{kThreads}, 0, a); }

}  // namespace

TESSERA_DEVICE_KERNEL_OF(TargetWeightArgs, TargetWeight)
TESSERA_DEVICE_KERNEL_OF(CrossEntropyArgs, CrossEntropy)
TESSERA_DEVICE_KERNEL_OF(LossSumArgs, LossSum)

}  // namespace tessera::TESSERA_DEVICE
