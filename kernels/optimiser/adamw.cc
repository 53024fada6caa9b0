#include "kernels/optimiser/adamw.h"

#include "core/parallel.h"
#include "kernels/cpu/simd.h"

namespace tessera::TESSERA_ISA {
namespace {

// body(block, tensor, begin, end) for every block of every tensor.
template <class Body>
void ForBlocks(const AdamWTensor* tensors, int64_t count, Body&& body) {
  ParallelFor(OptimizerBlocks(tensors, count), [&](int64_t block) {
    int64_t i = 0, first = 0;
    for (;; ++i) {
      const int64_t blocks = (tensors[i].size + kOptimizerBlock - 1) / kOptimizerBlock;
      if (block < first + blocks) break;
      first += blocks;
    }
    const int64_t begin = (block - first) * kOptimizerBlock;
    const int64_t end = begin + kOptimizerBlock;
    body(block, tensors[i], begin, end < tensors[i].size ? end : tensors[i].size);
  });
}

void AdamW(const AdamWArgs& a) {
  if (a.outcome->halted != 0) return;
  const OptimizerStep& s = *a.step;
  const float scale = a.outcome->gradient_scale;
  ForBlocks(a.tensors, a.count, [&](int64_t, const AdamWTensor& t, int64_t begin, int64_t end) {
    ForLanes(end - begin, [&](int64_t at, int n) {
      const int64_t i = begin + at;
      const Vec g = Load(t.gradient + i, n) * scale;
      const Vec m = a.beta1 * Load(t.first_moment + i, n) + (1 - a.beta1) * g;
      const Vec v = a.beta2 * Load(t.second_moment + i, n) + (1 - a.beta2) * (g * g);
      const Vec p = Load(t.parameter + i, n);
      const Vec step = m * s.first_correction / (Sqrt(v * s.second_correction) + a.epsilon);
      Store(t.first_moment + i, m, n);
      Store(t.second_moment + i, v, n);
      Store(t.parameter + i, p - s.lr * (step + t.weight_decay * p), n);
    });
  });
}

void SquareSum(const SquareSumArgs& a) {
  ForBlocks(a.tensors, a.count,
            [&](int64_t block, const AdamWTensor& t, int64_t begin, int64_t end) {
              double sum = 0;
              for (int64_t i = begin; i < end; i += 256) {
                const int64_t stop = i + 256 < end ? i + 256 : end;
                Vec squares = Splat(0);
                ForLanes(stop - i, [&](int64_t at, int n) {
                  const Vec g = Load(t.gradient + i + at, n);
                  squares += g * g;
                });
                sum += static_cast<double>(Sum(squares));
              }
              a.partial[block] = sum;
            });
}

void FindOutcome(const StepOutcomeArgs& a) {
  double loss = 0, squares = 0;
  for (int64_t i = 0; i < a.count; ++i)
    loss += static_cast<double>(a.share[i]) * static_cast<double>(a.loss[i]);
  for (int64_t i = 0; i < a.blocks; ++i) squares += a.partial[i];
  const double norm = __builtin_sqrt(squares), clip = static_cast<double>(a.step->clip);
  a.outcome->loss = loss;
  a.outcome->grad_norm = norm;
  a.outcome->gradient_scale = static_cast<float>(clip > 0 && norm > clip ? clip / norm : 1.0);
  // x - x is 0 for what is finite.
  if (!(loss - loss == 0) || !(norm - norm == 0)) a.outcome->halted = 1;
}

}  // namespace

TESSERA_KERNEL_OF(StepOutcomeArgs, FindOutcome)
TESSERA_KERNEL_OF(AdamWArgs, AdamW)
TESSERA_KERNEL_OF(SquareSumArgs, SquareSum)

}  // namespace tessera::TESSERA_ISA
