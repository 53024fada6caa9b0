#ifndef TESSERA_KERNELS_CPU_GEMM_H_
#define TESSERA_KERNELS_CPU_GEMM_H_

#include "kernels/cpu/isa.h"
#include "kernels/product/matmul.h"

// The parts of matrix products that dense and grouped products share. Every function here runs on
// the calling thread; callers cut the product into blocks by its shape and run them in parallel.

namespace tessera::TESSERA_ISA {

// A product as its blocks see it: what it is, times `scale`, and what of it is triangular. Above
// the diagonal a lower result becomes 0, or stays as it is where the product is added to it.
struct GemmArgs : MatmulArgs {
  float scale = 1;
  Lower lower = Lower::kNone;
};

// Rows [i0, i0+m) and columns [j0, j0+n) of a product, through packed panels: both factors are
// copied, block by block of K, into the order in which the register tile reads them, which is also
// where rows are gathered, transposed, and rounded to bf16.
// At most kMaxColumns columns.
inline constexpr int64_t kMaxColumns = 1024;
void PackedBlock(const GemmArgs& args, int64_t i0, int64_t m, int64_t j0, int64_t n);

// The same for few rows and b = {W, kTransposed}: dot products along K that read W once, where it
// lies. All rows of a at once.
void DotBlock(const GemmArgs& args, int64_t j0, int64_t n);
// Whether DotBlock serves a product and is the faster.
bool PrefersDots(const GemmArgs& args);

// A product cut into blocks, by its shape alone: how many, and one of them. `products` is how many
// products run side by side.
int64_t BlockCount(const GemmArgs& args, int64_t products);
void RunBlock(const GemmArgs& args, int64_t products, int64_t block);

// Writes sums[rows, columns] (ld elements between rows) to rows i.. and columns j.. of the product:
// scaled, with bias, added if it accumulates; of a lower result what is on and below the diagonal,
// and zeros above where it does not accumulate.
void Finish(const GemmArgs& args, const float* sums, int64_t ld, int64_t i, int64_t rows, int64_t j,
            int64_t columns);

// The same with zeros for sums, where nothing is added.
void FinishZeros(const GemmArgs& args, int64_t i, int64_t rows, int64_t j, int64_t columns);

// y[j] = or += sum of x[i,j] over i: in four running sums, so that rows need not wait for one
// another's adds.
template <class T>
void SumColumns(const T* x, int64_t stride, int64_t rows, int64_t columns, Grad mode, float* y);

}  // namespace tessera::TESSERA_ISA

#endif  // TESSERA_KERNELS_CPU_GEMM_H_
