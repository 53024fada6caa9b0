#ifndef TESSERA_KERNELS_PRODUCT_MATMUL_H_
#define TESSERA_KERNELS_PRODUCT_MATMUL_H_

#include <cstdint>

#include "core/dtype.h"
#include "kernels/cost.h"

namespace tessera {

// How a product is computed: in fp32, or with both factors rounded to bf16; sums are fp32 always.
// kBF16 allows rounding but does not promise it: a processor without bf16 products multiplies in
// fp32, and so do products of a few rows, which memory limits.
enum class Precision : uint8_t { kF32, kBF16 };

enum class Order : uint8_t { kPlain, kTransposed };

// Which matrix of a product is lower triangular as it is stored: of a factor the elements (i, j)
// with j > i are 0 whatever memory holds there, of the result they are not computed.
enum class Lower : uint8_t { kNone, kResult, kA, kB };

// A factor of a product, stored by rows of `stride` elements, fp32 or bf16; kTransposed uses the
// transpose of what is stored.
struct Factor {
  const void* data;
  DType dtype;
  int64_t stride;
  Order order = Order::kPlain;
  // Not null: stored row r is row rows[r] of data. Rows may repeat.
  const int32_t* rows = nullptr;
};

// The result of a product, row-major, fp32 or bf16.
struct Product {
  void* data;
  DType dtype;
  int64_t stride;
  Grad mode = Grad::kOverwrite;
  // Not null: row i is written to row rows[i] of data. No row may repeat.
  const int32_t* rows = nullptr;
};

// A matrix as it is stored: `rows` rows of `columns`. A GPU's tensor cores read bf16 in rows that
// are aligned to 16 bytes; anything else it copies to scratch memory first.
struct Stored {
  Factor factor;
  int64_t rows, columns;

  bool Aligned16() const {
    return reinterpret_cast<uintptr_t>(factor.data) % 16 == 0 &&
           factor.stride * SizeOf(factor.dtype) % 16 == 0;
  }
  bool Ready() const {
    return factor.dtype == DType::kBF16 && factor.rows == nullptr && Aligned16();
  }
  // Of the copy, in elements of bf16 and in floats.
  int64_t Pitch() const { return (columns + 7) / 8 * 8; }
  int64_t CopyFloats() const { return (rows * Pitch() + 7) / 8 * 4; }
  int64_t ScratchFloats() const { return Ready() ? 0 : CopyFloats(); }
};

// C[M,N] = row_scale[i] (A[M,K] B[K,N]) + bias[j], or added to C. With activations X[M,K] and a
// weight W[N,K], both row-major, the three products of a linear layer are
//   Y[M,N]  = X W^T       a = {X},              b = {W, kTransposed}
//   dX[M,K] = dY W        a = {dY},             b = {W}
//   dW[N,K] = dY^T X      a = {dY, kTransposed}, b = {X}
// Results depend on neither the thread count nor, within one instruction set, the machine; a row's
// last bits may depend on M. C overlaps neither factor.
struct MatmulArgs {
  static constexpr char kName[] = "matmul";
  Factor a, b;
  Product c;
  const float* bias = nullptr;       // [N]
  const float* row_scale = nullptr;  // [M]
  int64_t M, N, K;
  Precision precision = Precision::kF32;

  Stored stored_a() const { return a.order == Order::kPlain ? Stored{a, M, K} : Stored{a, K, M}; }
  Stored stored_b() const { return b.order == Order::kPlain ? Stored{b, K, N} : Stored{b, N, K}; }
  // A bias has the type of the result where a library adds it.
  Stored rounded_bias() const {
    const bool round = bias != nullptr && c.dtype == DType::kBF16;
    return {{bias, DType::kF32, N}, round ? 1 : 0, N};
  }
  // A few rows against a weight, as in decoding: the weight's bytes are the floor, so the CUDA
  // kernel uses no tensor cores and copies nothing.
  static constexpr int64_t kCudaFewRows = 8;
  bool few_rows() const {
    return M <= kCudaFewRows && a.order == Order::kPlain && b.order == Order::kTransposed;
  }
  // What the CUDA kernels ask for, in floats, as if there were a bias.
  int64_t CudaScratch() const {
    if (precision == Precision::kF32 || few_rows()) return 0;
    return stored_a().ScratchFloats() + stored_b().ScratchFloats() + Stored{{}, 1, N}.CopyFloats();
  }

  Cost cost() const {
    const int64_t passes = c.mode == Grad::kAccumulate ? 2 : 1;
    return {.flops = 2 * M * N * K,
            .bytes = M * K * SizeOf(a.dtype) + K * N * SizeOf(b.dtype) +
                     M * N * SizeOf(c.dtype) * passes};
  }
};

// y[j] = sum_i x[i,j], or added to y: the gradient of a bias. Rows are summed in order, in blocks.
template <class T>
struct ColumnSumArgs {
  static constexpr char kName[] = "column_sum";
  const T* x;  // [rows, C]
  int64_t x_stride;
  float* y;  // [C]
  Grad mode;
  int64_t rows, C;

  // On a GPU, blocks of so many rows are summed at once.
  static constexpr int64_t kCudaRows = 256;
  int64_t CudaScratch() const { return (rows + kCudaRows - 1) / kCudaRows * C; }
  Cost cost() const { return {.flops = rows * C, .bytes = rows * C * int64_t{sizeof(T)} + 4 * C}; }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_PRODUCT_MATMUL_H_
