#include "kernels/optimiser/adamw.h"

#include "kernels/optimiser/blocks.h"

namespace tessera::TESSERA_ISA {
namespace {

void AdamW(const AdamWArgs& a) {
  if (a.outcome->halted != 0) return;
  const OptimizerStep& s = *a.step;
  const float scale = a.outcome->gradient_scale;
  ForVectors(a.tensors, a.count, [&](const OptimizerTensor& t, int64_t i, int n) {
    const Vec g = Load(t.gradient + i, n) * scale;
    const Vec m = a.beta1 * Load(t.first_state + i, n) + (1 - a.beta1) * g;
    const Vec v = a.beta2 * Load(t.second_state + i, n) + (1 - a.beta2) * (g * g);
    const Vec p = Load(t.parameter + i, n);
    const Vec step = m * s.first_correction / (Sqrt(v * s.second_correction) + a.epsilon);
    Store(t.first_state + i, m, n);
    Store(t.second_state + i, v, n);
    Store(t.parameter + i, p - s.lr * t.lr_scale * (step + t.weight_decay * p), n);
  });
}

}  // namespace

TESSERA_KERNEL_OF(AdamWArgs, AdamW)

}  // namespace tessera::TESSERA_ISA
