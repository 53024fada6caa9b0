#ifndef TESSERA_KERNELS_CPU_TILE_PRODUCT_H_
#define TESSERA_KERNELS_CPU_TILE_PRODUCT_H_

#include <cstdint>

#include "kernels/cost.h"
#include "kernels/cpu/isa.h"

// Dense products of tiles that lie in the L1 or L2 cache, some 8 to 128 on a side, on the calling
// thread and without packing: what chunkwise scans and attention are made of. Products of whole
// matrices are kernels/product/matmul.h.

namespace tessera::TESSERA_ISA {

// c[m,n] = a[m,k] b[k,n], or += with kAccumulate; fp32. a(i,p) = a[i * a_row + p * a_col], so a may
// be transposed at no cost; b and c are row-major with ldb and ldc elements between rows. Any size
// from 0. Each element is one chain of fused multiply-adds in the order of p, then added to c.
void TileProduct(int64_t m, int64_t n, int64_t k, const float* a, int64_t a_row, int64_t a_col,
                 const float* b, int64_t ldb, float* c, int64_t ldc, Grad mode);

// y[cols,rows] = x[rows,cols] transposed; ldx and ldy elements between rows.
void Transpose(int64_t rows, int64_t cols, const float* x, int64_t ldx, float* y, int64_t ldy);

}  // namespace tessera::TESSERA_ISA

#endif  // TESSERA_KERNELS_CPU_TILE_PRODUCT_H_
