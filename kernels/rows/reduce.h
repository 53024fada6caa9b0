#ifndef TESSERA_KERNELS_ROWS_REDUCE_H_
#define TESSERA_KERNELS_ROWS_REDUCE_H_

#include "core/dtype.h"
#include "kernels/view.h"

namespace tessera {

enum class Reduction : uint8_t {
  kSum,
  kMean,
  kMax,
  kLse,  // log(sum of exp(x))
};

// y[g] = the reduction of the W columns of group g, for each of a row's G groups. The gradient of a
// maximum goes to the first of equal columns, that of kLse is the softmax times dy, or 0 where all
// of a group is -infinity.
template <class T_>
struct ReduceArgs {
  static constexpr char kName[] = "reduce", kGradName[] = "reduce_grad";
  View<T_> x;       // [B,T,G*W]
  View<T_> y;       // [B,T,G]
  View<float> lse;  // [B,T,G]: as y, unrounded; of kLse
  int64_t B, T, G, W;
  Reduction reduction = Reduction::kSum;

  template <class F>
  void Tensors(F&& f) {
    const bool linear = reduction == Reduction::kSum || reduction == Reduction::kMean;
    f.In("x", x, {B, T, G * W}, linear ? kUnread : kPlain);
    f.Out("y", y, {B, T, G});
    f.Kept("lse", lse, {reduction == Reduction::kLse ? B : 0, T, G});
  }
  int64_t rows() const { return B * T; }
  Cost cost() const {
    const int64_t per = reduction == Reduction::kLse ? 4 : 1;
    return {.flops = rows() * G * W * per, .bytes = rows() * G * (W + 1) * size()};
  }
  Cost grad_cost() const {
    if (reduction == Reduction::kLse)
      return {.flops = 3 * rows() * G * W, .bytes = rows() * G * ((2 * W + 1) * size() + 4)};
    const int64_t read = reduction == Reduction::kMax ? W : 0;
    return {.flops = reduction == Reduction::kSum ? 0 : rows() * G * (read + 1),
            .bytes = rows() * G * (W + 1 + read) * size()};
  }
  static constexpr int64_t size() { return int64_t{sizeof(T_)}; }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_ROWS_REDUCE_H_
