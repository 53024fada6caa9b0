#include "kernels/optimiser/adamw.h"
#include "kernels/optimiser/tensor_list.cuh"

namespace tessera::TESSERA_DEVICE {
namespace {

// Each element is read and written by one thread: 16 bytes read, 12 written, and nothing shared.
__global__ void __launch_bounds__(kThreads) AdamWKernel(TensorList list, AdamWArgs a) {
  if (a.outcome->halted != 0) return;
  const Part part = PartOf(list);
  const OptimizerTensor& t = part.tensor;
  const OptimizerStep s = *a.step;
  const float scale = a.outcome->gradient_scale, lr = s.lr * t.lr_scale;
  ForPart(part.begin, part.end, Aligned16(t), [&](int64_t at, auto count) {
    constexpr int N = count.value;
    float p[N], g[N], m[N], v[N];
    Load(t.parameter + at, p);
    Load(t.gradient + at, g);
    Load(t.first_state + at, m);
    Load(t.second_state + at, v);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      g[i] *= scale;
      m[i] = a.beta1 * m[i] + (1 - a.beta1) * g[i];
      v[i] = a.beta2 * v[i] + (1 - a.beta2) * (g[i] * g[i]);
      const float step =
          m[i] * s.first_correction / (sqrtf(v[i] * s.second_correction) + a.epsilon);
      p[i] -= lr * (step + t.weight_decay * p[i]);
    }
    Store(t.first_state + at, m);
    Store(t.second_state + at, v);
    Store(t.parameter + at, p);
  });
}

void AdamW(const AdamWArgs& a) {
  ForLists(a.tensors, a.count, [&](const TensorList& list, int64_t) {
    Launch(AdamWKernel, dim3{static_cast<unsigned>(list.blocks)}, dim3{kThreads}, 0, list, a);
  });
}

}  // namespace

TESSERA_DEVICE_KERNEL_OF(AdamWArgs, AdamW)

}  // namespace tessera::TESSERA_DEVICE
