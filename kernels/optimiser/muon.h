#ifndef TESSERA_KERNELS_OPTIMISER_MUON_H_
#define TESSERA_KERNELS_OPTIMISER_MUON_H_

#include "kernels/optimiser/step.h"

// The parts of Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks";
// Liu et al. 2025, arXiv:2502.16982, algorithm 1) that are no products. For a matrix [n,m] with
// gradient g, which is scaled by the clipping factor, and k = min(n, m):
//   M = momentum M + g,   U = g + momentum M,   X_0 = U / |U|,
//   A = X X^T (or X^T X, the smaller) [k,k],   B = a I + b A + c A^2,   X = B X (or X B), 5 times,
//   p = p - lr (0.2 sqrt(max(n, m)) X + decay p).
// The five products bring the singular values of X near 1 (Newton-Schulz); the factor gives the
// update the size that AdamW's has.

namespace tessera {

inline constexpr float kNewtonSchulzA = 3.4445f, kNewtonSchulzB = -4.7750f,
                       kNewtonSchulzC = 2.0315f;
inline constexpr int kNewtonSchulzSteps = 5;

// M and U of one matrix, and the sum of squares of each block of U. Once the outcome is halted M
// stays, and U is 0.
struct MuonMomentumArgs {
  static constexpr char kName[] = "muon_momentum";
  const float* gradient;  // [size]
  float *momentum, *update;
  double* partial;  // [OptimizerBlocks(size)]
  int64_t size;
  float beta;
  const StepOutcome* outcome;
  Cost cost() const { return {.flops = 6 * size, .bytes = 16 * size}; }
};

// U = U / (|U| + 1e-7).
struct MuonNormaliseArgs {
  static constexpr char kName[] = "muon_normalise";
  float* update;          // [size]
  const double* partial;  // [OptimizerBlocks(size)]
  int64_t size;
  Cost cost() const { return {.flops = size, .bytes = 8 * size}; }
};

// square = a I + b gram + c square, all [n,n].
struct MuonPolynomialArgs {
  static constexpr char kName[] = "muon_polynomial";
  const float* gram;
  float* square;
  int64_t n;
  Cost cost() const { return {.flops = 3 * n * n, .bytes = 12 * n * n}; }
};

// p = p - lr lr_scale (scale X + decay p). Does nothing once the outcome is halted.
struct MuonApplyArgs {
  static constexpr char kName[] = "muon_apply";
  float* parameter;     // [size]
  const float* update;  // [size]
  int64_t size;
  float scale, weight_decay, lr_scale;
  const OptimizerStep* step;
  const StepOutcome* outcome;
  Cost cost() const { return {.flops = 4 * size, .bytes = 12 * size}; }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_OPTIMISER_MUON_H_
