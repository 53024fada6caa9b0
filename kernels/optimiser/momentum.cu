#include "kernels/optimiser/momentum.h"
#include "kernels/optimiser/tensor_list.cuh"

namespace tessera::TESSERA_DEVICE {
namespace {

// move(tensor, p, g, m): the new parameter and state of one element, of which a thread has it
// whole.
template <class Move>
__device__ __forceinline__ void MovePart(const TensorList& list, const StepOutcome* outcome,
                                         Move move) {
  if (outcome->halted != 0) return;
  const Part part = PartOf(list);
  const OptimizerTensor& t = part.tensor;
  const float scale = outcome->gradient_scale;
  ForPart(part.begin, part.end, Aligned16(t), [&](int64_t at, auto count) {
    constexpr int N = count.value;
    float p[N], g[N], m[N];
    Load(t.parameter + at, p);
    Load(t.gradient + at, g);
    Load(t.first_state + at, m);
#pragma unroll
    for (int i = 0; i < N; ++i) move(t, p[i], scale * g[i], m[i]);
    Store(t.first_state + at, m);
    Store(t.parameter + at, p);
  });
}

__global__ void __launch_bounds__(kThreads) LionKernel(TensorList list, LionArgs a) {
  MovePart(list, a.outcome, [&](const OptimizerTensor& t, float& p, float g, float& m) {
    const float c = a.beta1 * m + (1 - a.beta1) * g;
    const float sign = c > 0 ? 1 : c < 0 ? -1 : 0;
    m = a.beta2 * m + (1 - a.beta2) * g;
    p -= a.step->lr * t.lr_scale * (sign + t.weight_decay * p);
  });
}

__global__ void __launch_bounds__(kThreads) SgdKernel(TensorList list, SgdArgs a) {
  MovePart(list, a.outcome, [&](const OptimizerTensor& t, float& p, float g, float& m) {
    m = a.momentum * m + g;
    p -= a.step->lr * t.lr_scale * (m + t.weight_decay * p);
  });
}

void Lion(const LionArgs& a) {
  ForLists(a.tensors, a.count, [&](const TensorList& list, int64_t) {
    Launch(LionKernel, dim3{static_cast<unsigned>(list.blocks)}, dim3{kThreads}, 0, list, a);
  });
}
void Sgd(const SgdArgs& a) {
  ForLists(a.tensors, a.count, [&](const TensorList& list, int64_t) {
    Launch(SgdKernel, dim3{static_cast<unsigned>(list.blocks)}, dim3{kThreads}, 0, list, a);
  });
}

}  // namespace

TESSERA_DEVICE_KERNEL_OF(LionArgs, Lion)
TESSERA_DEVICE_KERNEL_OF(SgdArgs, Sgd)

}  // namespace tessera::TESSERA_DEVICE
