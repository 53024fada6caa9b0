#ifndef TESSERA_KERNELS_ROWS_NORM_H_
#define TESSERA_KERNELS_ROWS_NORM_H_

#include "core/dtype.h"
#include "kernels/view.h"

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

template <class T_>
struct NormArgs {
  static constexpr char kName[] = "norm", kGradName[] = "norm_grad";
  NormKind kind = NormKind::kRms;
  NormGate gate = NormGate::kNone;
  View<T_> x;                // [rows,D]; with terms their sum, which is written here first
  View<T_> z;                // [rows,D], with a gate
  View<float> gain;          // [D], [W] shared by the groups, or none: ones
  View<float> bias;          // [D] or none; of a layer norm
  View<T_> y;                // [rows,D]
  View<float> rstd, mean;    // [rows,G]: 1 / sqrt(...), and of a layer norm; for the gradient
  View<float> partial;       // of the gradient
  View<T_> first, residual;  // [rows,D], or none: the terms of x, whose derivatives are their sum's
  float residual_scale = 1;
  int64_t rows, D, G = 1;
  float eps;
  bool shared_gain = false;
  template <class F>
  void Tensors(F&& f) {
    f.In("x", x, {rows, D});
    f.In("z", z, {rows, D}, kOptional);
    f.In("gain", gain, {shared_gain ? D / G : D}, kOptional | kDense);
    f.In("bias", bias, {D}, kOptional | kUnread | kDense);
    f.Out("y", y, {rows, D});
    f.Kept("rstd", rstd, {rows, G});
    f.Kept("mean", mean, {kind == NormKind::kLayer ? rows : 0, G});
    f.GradWorkspace("partial", partial, {gain || bias ? blocks() : 0, 2, D});
  }

  Cost cost() const {
    const int64_t gates = gate == NormGate::kNone ? 0 : 1, sums = residual ? 1 : 0;
    return {.flops = rows * D * ((kind == NormKind::kLayer ? 6 : 4) + 4 * gates + 2 * sums),
            .bytes = rows * D * static_cast<int64_t>(sizeof(T_)) * (2 + gates + 2 * sums) + 4 * D};
  }

  // The gradient. Sums over rows go through `partial`: one row of sums for each block of rows,
  // added in order at the end.
  static constexpr int64_t kBlocks = 64;
  constexpr int64_t block_rows() const {
    return rows <= 32 * kBlocks ? 32 : (rows + kBlocks - 1) / kBlocks;
  }
  constexpr int64_t blocks() const { return (rows + block_rows() - 1) / block_rows(); }
  Cost grad_cost() const {
    const int64_t gates = gate == NormGate::kNone ? 0 : 1;
    return {.flops = rows * D * (9 + 8 * gates),
            .bytes = rows * D * static_cast<int64_t>(sizeof(T_)) * (3 + 2 * gates) + 8 * D};
  }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_ROWS_NORM_H_
