#ifndef TESSERA_KERNELS_EXPERTS_EXPERT_ACTIVATION_H_
#define TESSERA_KERNELS_EXPERTS_EXPERT_ACTIVATION_H_

#include "kernels/pointwise/activation.h"
#include "kernels/view.h"

namespace tessera {

enum class Gating : uint8_t { kPlain, kGated };

// The hidden function of experts on their rows (kernels/experts/routing.h), f(x), or gated f(gate)
// up, which reads [gate | up], twice its width F. Each row is multiplied by its routing weight
// here, before the last product of the expert rather than after it, so that the weight's derivative
// needs no output of that product.

// y[r] = weight[slot_of[r]] f(x[r]) for r < *used; the other rows are left alone. The derivative of
// the weights is dweight[s] = <dy[r], f(x[r])> for s = slot_of[r]; that of a row in no use is 0.
template <class T_>
struct ExpertActivationArgs {
  static constexpr char kName[] = "expert_activation", kGradName[] = "expert_activation_grad";
  Activation f;
  Gating gating;
  View<T_> x;                   // [rows,F], gated [rows,2F]
  View<float> weight;           // [rows / choices, choices], by slot, or none: ones
  View<const int32_t> slot_of;  // [rows], or none: the row itself
  View<const int32_t> used;     // [1]: rows that belong to an expert; none: all
  View<T_> y;                   // [rows,F]
  int64_t rows, F, choices = 1;
  template <class Use>
  void Tensors(Use&& use) {
    use.In("x", x, {rows, in()});
    use.In("weight", weight, {rows / choices, choices}, kOptional | kDense);
    use.Index("slot_of", slot_of, {rows}, kOptional);
    use.Index("used", used, {1}, kOptional);
    use.Out("y", y, {rows, F});
  }
  int64_t gated() const { return gating == Gating::kGated ? 1 : 0; }
  int64_t in() const { return (1 + gated()) * F; }
  int64_t given() const { return weight ? 1 : 0; }
  // As if every row were used.
  Cost cost() const {
    return {.flops = rows * F * (FlopsOf(f) + gated() + given()),
            .bytes = rows * (in() + F) * int64_t{sizeof(T_)} + 8 * rows * given()};
  }
  Cost grad_cost(const ExpertActivationArgs& d) const {
    const int64_t passes = d.x.mode == Grad::kAccumulate ? 3 : 2;
    return {.flops = rows * F * (2 * FlopsOf(f) + 1 + 2 * gated() + 3 * given()),
            .bytes = rows * (in() * passes + F) * int64_t{sizeof(T_)} + 12 * rows * given()};
  }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_EXPERTS_EXPERT_ACTIVATION_H_
