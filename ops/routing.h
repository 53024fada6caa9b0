#ifndef TESSERA_OPS_ROUTING_H_
#define TESSERA_OPS_ROUTING_H_

#include <optional>

#include "kernels/routing.h"
#include "ops/context.h"

// What the ops of a mixture of experts share: how tokens are routed, and the routing that comes of
// it. Equations, slots, rows and drops are explained in kernels/routing.h.

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

}  // namespace tessera

#endif  // TESSERA_OPS_ROUTING_H_
