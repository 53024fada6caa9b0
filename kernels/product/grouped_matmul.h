#ifndef TESSERA_KERNELS_PRODUCT_GROUPED_MATMUL_H_
#define TESSERA_KERNELS_PRODUCT_GROUPED_MATMUL_H_

#include "kernels/product/matmul.h"

namespace tessera {

// Rows an expert from which the warpgroup instructions' tiles, 128 rows high, are filled well
// enough. Where weights are fp32 those of all experts are rounded to a copy first: 6 bytes a
// weight, which take as long as some hundred rows' product with it.
inline constexpr int64_t kWgmmaRows = 64, kWgmmaRoundedRows = 256;

// Products of experts, whose numbers of rows are known only when they run. Rows are sorted by
// expert: those of expert e are [offsets[e], offsets[e+1]); rows from offsets[E] on belong to none
// and are neither read nor written. Row lists of factors and products, where given, are indexed by
// these rows too, so an expert's input can be gathered from its tokens while it is packed.

// C[r,:] = row_scale[r] (A[r,:] B_e) + bias_e for each row r of expert e, or added to C:
//   Y  = X W_e^T   b = {W, kTransposed} of W[E,N,K]
//   dX = dY W_e    b = {W}, with N and K exchanged
struct GroupedMatmulArgs {
  static constexpr char kName[] = "grouped_matmul";
  Factor a;                          // [rows, K], kPlain
  Factor b;                          // of expert 0; no row list
  int64_t b_group_stride;            // elements of b between experts
  Product c;                         // [rows, N]
  const float* bias = nullptr;       // [E,N]
  const float* row_scale = nullptr;  // [rows]
  const int32_t* offsets;            // [E+1], ascending
  int64_t rows, E, N, K;
  Precision precision = Precision::kF32;

  Stored stored_a() const { return {a, rows, K}; }
  // The matrices of all experts as one, where they follow each other.
  Stored stored_b() const {
    return b.order == Order::kPlain ? Stored{b, E * K, N} : Stored{b, E * N, K};
  }
  bool few_rows() const {
    return rows <= MatmulArgs::kCudaFewRows && b.order == Order::kTransposed;
  }
  bool prefers_wgmma() const {
    return rows >= E * (stored_b().Ready() ? kWgmmaRows : kWgmmaRoundedRows);
  }
  // What the CUDA kernels ask for, in floats, as if rows were gathered.
  int64_t CudaScratch() const {
    if (precision == Precision::kF32 || few_rows()) return 0;
    return stored_a().CopyFloats() + stored_b().ScratchFloats();
  }

  // As if every row belonged to an expert and every expert had rows.
  Cost cost() const {
    const int64_t passes = c.mode == Grad::kAccumulate ? 2 : 1;
    return {.flops = 2 * rows * N * K,
            .bytes = rows * K * SizeOf(a.dtype) + E * K * N * SizeOf(b.dtype) +
                     rows * N * SizeOf(c.dtype) * passes};
  }
};

// dW_e[N,K] = sum over the rows r of expert e of dY[r,:]^T X[r,:], or added to dW; 0 for an expert
// without rows. And its bias: db_e[N] = sum of dY[r,:].
struct GroupedWeightGradArgs {
  static constexpr char kName[] = "grouped_weight_grad";
  Factor dy;                // [rows, N], kPlain
  Factor x;                 // [rows, K], kPlain
  Product dw;               // of expert 0: [N, K]; no row list
  int64_t dw_group_stride;  // elements of dw between experts
  const int32_t* offsets;   // [E+1], ascending
  int64_t rows, E, N, K;
  Precision precision = Precision::kF32;

  Stored stored_dy() const { return {dy, rows, N}; }
  Stored stored_x() const { return {x, rows, K}; }
  bool prefers_wgmma() const { return rows >= E * kWgmmaRows; }
  int64_t CudaScratch() const {
    return precision == Precision::kF32 ? 0 : stored_dy().CopyFloats() + stored_x().CopyFloats();
  }

  Cost cost() const {
    const int64_t passes = dw.mode == Grad::kAccumulate ? 2 : 1;
    return {.flops = 2 * rows * N * K,
            .bytes = rows * K * SizeOf(x.dtype) + rows * N * SizeOf(dy.dtype) +
                     E * N * K * SizeOf(dw.dtype) * passes};
  }
};

// y_e[j] = sum of x[r,j] over the rows of expert e, or added to y: the gradient of experts' biases.
template <class T>
struct GroupedColumnSumArgs {
  static constexpr char kName[] = "grouped_column_sum";
  const T* x;  // [rows, C]
  int64_t x_stride;
  float* y;  // [E,C]
  Grad mode;
  const int32_t* offsets;  // [E+1], ascending
  int64_t rows, E, C;
  Cost cost() const {
    return {.flops = rows * C, .bytes = rows * C * int64_t{sizeof(T)} + 4 * E * C};
  }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_PRODUCT_GROUPED_MATMUL_H_
