#ifndef TESSERA_KERNELS_ROWS_EMBEDDING_H_
#define TESSERA_KERNELS_ROWS_EMBEDDING_H_

#include "core/dtype.h"
#include "kernels/layout/gather.h"

namespace tessera {

// y[r] = table[token[r]]. Token ids are in [0, V): CheckTokens (arch/tokens.h) asks where they
// enter. A row of any other id is NaN, so that the loss tells, and takes no part in the gradient;
// no memory outside the table is touched for it.
// The gradient is dtable[v] = sum of dy[r] over the rows with token v, in the order of the rows.
template <class T_>
struct EmbeddingArgs {
  static constexpr char kName[] = "embedding", kGradName[] = "embedding_grad";
  View<const int32_t> token;  // [B,T]
  View<float> table;          // [V,D]
  View<T_> y;                 // [B,T,D]
  int64_t B, T, V, D;
  template <class F>
  void Tensors(F&& f) {
    f.Index("token", token, {B, T});
    f.In("table", table, {V, D}, kUnread | kDense);
    f.Out("y", y, {B, T, D});
  }
  int64_t rows() const { return B * T; }
  int64_t GradCudaScratch() const { return RowSumScratch(rows()); }
  Cost cost() const { return {.bytes = rows() * (D * (4 + int64_t{sizeof(T_)}) + 4)}; }
  Cost grad_cost(const EmbeddingArgs& d) const {
    return {.flops = rows() * D,
            .bytes = rows() * (D * (8 + int64_t{sizeof(T_)}) + 4) +
                     (d.table.mode == Grad::kOverwrite ? V * D * 4 : 0)};
  }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_ROWS_EMBEDDING_H_
