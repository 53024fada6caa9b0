#include "kernels/cuda/reduce.h"
#include "kernels/rows/cross_entropy.h"

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

// A block a row, N columns a thread at a time. Each thread keeps the running maximum and sum of its
// columns; together they give those of the row, and a second pass writes the gradient. The row is
// read twice and written once.
template <int N>
__global__ void __launch_bounds__(kThreads) CrossEntropyKernel(CrossEntropyArgs a) {
  const int64_t row = blockIdx.x, first = N * int64_t{threadIdx.x};
  constexpr int64_t kStep = N * kThreads;
  float* const l = a.logits + row * a.V;
  const int64_t target = a.target[row];
  float x[N];
  if (target < 0) {  // the whole block
    if (threadIdx.x == 0) a.nll[row] = 0;
#pragma unroll
    for (float& zero : x) zero = 0;
    for (int64_t c = first; a.gradient && c < a.V; c += kStep) Store(l + c, x);
    return;
  }
  float most = -INFINITY, sum = 0;
  for (int64_t c = first; c < a.V; c += kStep) {
    Load(l + c, x);
    float larger = most;
#pragma unroll
    for (const float v : x) larger = fmaxf(larger, v);
    if (larger > most) {
      sum *= expf(most - larger);
      most = larger;
    }
#pragma unroll
    for (const float v : x) sum += expf(v - most);
  }
  const float largest = BlockMax<kThreads>(most);
  sum = BlockSum<kThreads>(most == -INFINITY ? sum : sum * expf(most - largest));
  // The thread that reads the target's logit is the one that overwrites it below.
  if (threadIdx.x == target / N % kThreads)
    a.nll[row] = target < a.V ? logf(sum) - (l[target] - largest) : NAN;
  if (!a.gradient) return;
  const float weight = a.weight[0], scale = weight / sum;
  for (int64_t c = first; c < a.V; c += kStep) {
    Load(l + c, x);
#pragma unroll
    for (int i = 0; i < N; ++i)
      x[i] = expf(x[i] - largest) * scale - (c + i == target ? weight : 0);
    Store(l + c, x);
  }
}

void TargetWeight(const TargetWeightArgs& a) {
  Launch(TargetWeightKernel, dim3{1}, dim3{kThreads}, 0, a);
}
void CrossEntropy(const CrossEntropyArgs& a) {
  if (a.rows == 0) return;
  const bool wide = Aligned(a.logits, a.V) && a.V % 4 == 0;
  Launch(wide ? CrossEntropyKernel<4> : CrossEntropyKernel<1>, dim3{static_cast<unsigned>(a.rows)},
         dim3{kThreads}, 0, a);
}
void LossSum(const LossSumArgs& a) { Launch(LossSumKernel, dim3{1}, dim3{kThreads}, 0, a); }

}  // namespace

TESSERA_DEVICE_KERNEL_OF(TargetWeightArgs, TargetWeight)
TESSERA_DEVICE_KERNEL_OF(CrossEntropyArgs, CrossEntropy)
TESSERA_DEVICE_KERNEL_OF(LossSumArgs, LossSum)

}  // namespace tessera::TESSERA_DEVICE
