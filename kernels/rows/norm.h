#ifndef TESSERA_KERNELS_ROWS_NORM_H_
#define TESSERA_KERNELS_ROWS_NORM_H_

#include "core/dtype.h"
#include "kernels/cost.h"

// Normalisation of each token over its channels, or over each of G groups of W = D / G of them (a
// group norm within the token; the norm of every head, where G is the number of heads):
//   rms    y = gain u / sqrt(mean(u^2) + eps)                    (Zhang & Sennrich 2019, eq. 4)
//   layer  y = gain (u - mean(u)) / sqrt(var(u) + eps) + bias    (Ba et al. 2016, eq. 4)
// u is x, or x silu(z) where a gate comes before the norm (Mamba-2: Dao & Gu 2024, section 7.1); a
// gate after it multiplies y by silu(z) (GLA: Yang et al. 2024, section 4.4). With a residual, x is
// the sum x + residual_scale residual, rounded to its type, which is left in `sum`.

namespace tessera {

enum class NormKind : uint8_t { kRms, kLayer };
// Gates are for the rms norm only.
enum class NormGate : uint8_t { kNone, kBefore, kAfter };

template <class T>
struct NormArgs {
  static constexpr char kName[] = "norm";
  NormKind kind = NormKind::kRms;
  NormGate gate = NormGate::kNone;
  const T* x;  // [rows, D]
  int64_t x_stride;
  const T* z = nullptr;  // [rows, D], with a gate
  int64_t z_stride = 0;
  const T* residual = nullptr;  // [rows, D] or null
  int64_t residual_stride = 0;
  float residual_scale = 1;
  T* sum = nullptr;  // [rows, D], with a residual
  int64_t sum_stride = 0;
  const float* gain = nullptr;  // [D], [W] shared by the groups, or null: ones
  bool shared_gain = false;
  const float* bias = nullptr;  // [D] or null; of a layer norm
  T* y;                         // [rows, D]
  int64_t y_stride;
  float* rstd = nullptr;  // [rows, G]: 1 / sqrt(...), kept for the gradient; or null
  float* mean = nullptr;  // [rows, G]: of a layer norm; or null
  int64_t rows, D, G = 1;
  float eps;

  Cost cost() const {
    const int64_t gates = gate == NormGate::kNone ? 0 : 1, sums = residual_stride > 0 ? 1 : 0;
    return {.flops = rows * D * ((kind == NormKind::kLayer ? 6 : 4) + 4 * gates + 2 * sums),
            .bytes = rows * D * static_cast<int64_t>(sizeof(T)) * (2 + gates + 2 * sums) + 4 * D};
  }
};

// The gradient. Sums over rows go through `partial`: one row of sums for each block of rows, added
// in order at the end.
template <class T>
struct NormGradArgs {
  static constexpr char kName[] = "norm_grad";
  NormKind kind = NormKind::kRms;
  NormGate gate = NormGate::kNone;
  const T *x, *z = nullptr;
  int64_t x_stride, z_stride = 0;
  const float* gain = nullptr;
  bool shared_gain = false;
  const float *rstd, *mean = nullptr;
  const T* dy;
  int64_t dy_stride;
  T* dx = nullptr;
  int64_t dx_stride = 0;
  Grad dx_mode = Grad::kOverwrite;
  T* dz = nullptr;
  int64_t dz_stride = 0;
  Grad dz_mode = Grad::kOverwrite;
  float* dgain = nullptr;  // like gain
  Grad dgain_mode = Grad::kOverwrite;
  float* dbias = nullptr;  // [D]
  Grad dbias_mode = Grad::kOverwrite;
  float* partial = nullptr;  // [blocks(), 2, D], if dgain or dbias is wanted
  int64_t rows, D, G = 1;

  static constexpr int64_t kBlocks = 64;
  constexpr int64_t block_rows() const {
    return rows <= 32 * kBlocks ? 32 : (rows + kBlocks - 1) / kBlocks;
  }
  constexpr int64_t blocks() const { return (rows + block_rows() - 1) / block_rows(); }
  Cost cost() const {
    const int64_t gates = gate == NormGate::kNone ? 0 : 1;
    return {.flops = rows * D * (9 + 8 * gates),
            .bytes = rows * D * static_cast<int64_t>(sizeof(T)) * (3 + 2 * gates) + 8 * D};
  }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_ROWS_NORM_H_
