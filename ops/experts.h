#ifndef TESSERA_OPS_EXPERTS_H_
#define TESSERA_OPS_EXPERTS_H_

#include <optional>

#include "kernels/experts/expert_activation.h"
#include "kernels/experts/routing.h"
#include "ops/context.h"

// Mixtures of experts: how tokens are routed, and the products of experts. Equations, slots, rows
// and drops are explained in kernels/experts/routing.h. As all ops: see ops/ops.h.

namespace tessera {

struct RoutingOptions {
  int64_t top_k;
  RouterSoftmax softmax = RouterSoftmax::kChosen;
  double scale = 1;                       // of all weights
  std::optional<double> capacity_factor;  // none: no expert drops a token
  double balance_loss = 0, z_loss = 0;    // coefficients in the objective
};

// Rows that a capacity factor allows each of E experts: ceil(factor R k / E), at least 1.
int64_t ExpertCapacity(double factor, int64_t R, int64_t k, int64_t E);

// R tokens sent to k experts each. The tensors stay on the device: nothing is read on the host.
struct Routing {
  int64_t R, E, k;
  Var weight;       // fp32 [R,k], 0 where dropped
  Tensor expert;    // int32 [R,k]
  Tensor offsets;   // int32 [E+1]: the rows of each expert
  Tensor row_of;    // int32 [R,k]: -1 where dropped
  Tensor slot_of;   // int32 [R k]
  Tensor token_of;  // int32 [R k]
};

// The number of rows that belong to an expert, as kernels read it.
inline const int32_t* RowsInUse(const Tensor& offsets) {
  const int32_t* data = offsets.defined() ? offsets.data<int32_t>() : nullptr;
  return data == nullptr ? nullptr : data + offsets.elements() - 1;
}

// x [...,D] times the router's weight [E,D]: fp32 [R,E] whatever the compute type.
Var RouterLogits(Context& ctx, const Var& x, const Var& weight);
// Chooses the experts of each token. Adds the losses that the options ask for to the objective and
// reports the metrics load [E], max_violation, dropped and router_entropy. The losses and the
// capacity are for training: without ctx.training no token is dropped.
Routing Route(Context& ctx, const Var& logits, const RoutingOptions& options);
// Tokens x [...,D] to the rows of experts [R k, D], and those back to tokens of `shape`, weighted.
// Rows of no expert are undefined.
Var Permute(Context& ctx, const Var& x, const Routing& routing);
Var Combine(Context& ctx, const Var& x, const Routing& routing, const Shape& shape);
// Combine(GroupedLinear(f(GroupedLinear(Permute(x))))) without copies of tokens: the first product
// gathers its rows from tokens x [...,D] (weight [E,N,D]); the activation multiplies by the routing
// weights; the last product sums the rows of each token into `shape` (weight [E,D,F]).
Var DispatchLinear(Context& ctx, const Var& x, const Var& weight, const Routing& routing);
Var ExpertActivation(Context& ctx, Activation f, Gating gating, const Var& x,
                     const Routing& routing);
Var CombineLinear(Context& ctx, const Var& x, const Var& weight, const Routing& routing,
                  const Shape& shape);
// The same activation of all rows of x, each times its weight, fp32 [rows]; undefined: 1.
Var WeightedActivation(Context& ctx, Activation f, Gating gating, const Var& x,
                       const Var& weight = Var());

}  // namespace tessera

#endif  // TESSERA_OPS_EXPERTS_H_
