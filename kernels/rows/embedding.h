#ifndef TESSERA_KERNELS_ROWS_EMBEDDING_H_
#define TESSERA_KERNELS_ROWS_EMBEDDING_H_

#include "core/dtype.h"
#include "kernels/cost.h"
#include "kernels/layout/gather.h"

namespace tessera {

// y[r] = table[token[r]]. Token ids are in [0, V): CheckTokens (arch/tokens.h) asks where they
// enter. A row of any other id is NaN, so that the loss tells, and takes no part in the gradient;
// no memory outside the table is touched for it.
template <class T>
struct EmbeddingArgs {
  static constexpr char kName[] = "embedding";
  const int32_t* token;  // [rows]
  const float* table;    // [V, D]
  T* y;                  // [rows, D]
  int64_t y_stride;
  int64_t rows, V, D;
  Cost cost() const { return {.flops = 0, .bytes = rows * (D * (4 + int64_t{sizeof(T)}) + 4)}; }
};

// dtable[v] = sum of dy[r] over the rows with token v, in the order of the rows.
template <class T>
struct EmbeddingGradArgs {
  static constexpr char kName[] = "embedding_grad";
  const int32_t* token;  // [rows]
  const T* dy;           // [rows, D]
  int64_t dy_stride;
  float* dtable;  // [V, D]
  Grad dtable_mode;
  int64_t rows, V, D;

  int64_t CudaScratch() const { return RowSumScratch(rows); }
  Cost cost() const {
    return {.flops = rows * D,
            .bytes = rows * (D * (8 + int64_t{sizeof(T)}) + 4) +
                     (dtable_mode == Grad::kOverwrite ? V * D * 4 : 0)};
  }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_ROWS_EMBEDDING_H_
