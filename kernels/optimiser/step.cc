#include "kernels/optimiser/step.h"

#include "kernels/optimiser/blocks.h"

namespace tessera::TESSERA_ISA {
namespace {

void SquareSum(const SquareSumArgs& a) {
  ForBlocks(a.tensors, a.count,
            [&](int64_t block, const OptimizerTensor& t, int64_t begin, int64_t end) {
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
TESSERA_KERNEL_OF(SquareSumArgs, SquareSum)

}  // namespace tessera::TESSERA_ISA
