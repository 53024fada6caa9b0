#include "kernels/rows/cross_entropy.h"

#include "core/parallel.h"
#include "kernels/cpu/vmath.h"

namespace tessera::TESSERA_ISA {
namespace {

void TargetWeight(const TargetWeightArgs& a) {
  int64_t count = 0;
  for (int64_t r = 0; r < a.rows; ++r) count += a.target[r] >= 0 ? 1 : 0;
  a.weight[0] = count == 0 ? 0.0f : static_cast<float>(1.0 / static_cast<double>(count));
}

void CrossEntropyRow(const CrossEntropyArgs& a, int64_t r) {
  float* const l = a.logits + r * a.V;
  const int64_t target = a.target[r];
  if (target < 0) {
    a.nll[r] = 0;
    if (a.gradient) __builtin_memset(l, 0, static_cast<size_t>(a.V) * sizeof(float));
    return;
  }
  const bool known = target < a.V;
  Vec most = Splat(-__builtin_inff());
  int64_t i = 0;
  for (; i + kLanes <= a.V; i += kLanes) most = Max(most, Load(l + i));
  float largest = MaxOf(most);
  for (; i < a.V; ++i) largest = l[i] > largest ? l[i] : largest;
  const float at_target = known ? l[target] - largest : __builtin_nanf("");
  Vec sums = Splat(0);
  float tail = 0;
  for (i = 0; i + kLanes <= a.V; i += kLanes) {
    const Vec e = Exp(Load(l + i) - largest);
    sums += e;
    if (a.gradient) Store(l + i, e);
  }
  if (const int64_t n = a.V - i; n > 0) {
    float e[kLanes];
    Store(e, Exp(Load(l + i, n) - largest));
    for (int64_t j = 0; j < n; ++j) tail += e[j];
    if (a.gradient)
      for (int64_t j = 0; j < n; ++j) l[i + j] = e[j];
  }
  const float sum = Sum(sums) + tail;
  float log_sum[kLanes];
  Store(log_sum, Log(Splat(sum)));
  a.nll[r] = log_sum[0] - at_target;
  if (!a.gradient) return;
  const float scale = a.weight[0] / sum;
  ForLanes(a.V, [&](int64_t j, int n) { Store(l + j, Load(l + j, n) * scale, n); });
  if (known) l[target] -= a.weight[0];
}

void CrossEntropy(const CrossEntropyArgs& a) {
  const int64_t grain = 1 + 8192 / a.V;
  ParallelRanges(a.rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) CrossEntropyRow(a, r);
  });
}

void LossSum(const LossSumArgs& a) {
  double sum = 0;
  for (int64_t r = 0; r < a.rows; ++r) sum += static_cast<double>(a.nll[r]);
  a.loss[0] = static_cast<float>(sum * static_cast<double>(a.weight[0]));
}

}  // namespace

TESSERA_KERNEL_OF(TargetWeightArgs, TargetWeight)
TESSERA_KERNEL_OF(CrossEntropyArgs, CrossEntropy)
TESSERA_KERNEL_OF(LossSumArgs, LossSum)

}  // namespace tessera::TESSERA_ISA
