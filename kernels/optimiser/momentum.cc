#include "kernels/optimiser/momentum.h"

#include "kernels/optimiser/blocks.h"

namespace tessera::TESSERA_ISA {
namespace {

void Lion(const LionArgs& a) {
  if (a.outcome->halted != 0) return;
  const float scale = a.outcome->gradient_scale, lr = a.step->lr;
  const Vec one = Splat(1), zero{};
  ForVectors(a.tensors, a.count, [&](const OptimizerTensor& t, int64_t i, int n) {
    const Vec g = Load(t.gradient + i, n) * scale, m = Load(t.first_state + i, n);
    const Vec p = Load(t.parameter + i, n), c = a.beta1 * m + (1 - a.beta1) * g;
    const Vec sign = c > zero ? one : c < zero ? -one : zero;
    Store(t.first_state + i, a.beta2 * m + (1 - a.beta2) * g, n);
    Store(t.parameter + i, p - lr * t.lr_scale * (sign + t.weight_decay * p), n);
  });
}

void Sgd(const SgdArgs& a) {
  if (a.outcome->halted != 0) return;
  const float scale = a.outcome->gradient_scale, lr = a.step->lr;
  ForVectors(a.tensors, a.count, [&](const OptimizerTensor& t, int64_t i, int n) {
    const Vec g = Load(t.gradient + i, n) * scale, p = Load(t.parameter + i, n);
    const Vec m = a.momentum * Load(t.first_state + i, n) + g;
    Store(t.first_state + i, m, n);
    Store(t.parameter + i, p - lr * t.lr_scale * (m + t.weight_decay * p), n);
  });
}

}  // namespace

TESSERA_KERNEL_OF(LionArgs, Lion)
TESSERA_KERNEL_OF(SgdArgs, Sgd)

}  // namespace tessera::TESSERA_ISA
