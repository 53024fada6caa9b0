#ifndef TESSERA_OPS_ENDS_H_
#define TESSERA_OPS_ENDS_H_

#include <span>

#include "ops/context.h"

// The two ends of a model. As all ops: see ops/ops.h.

namespace tessera {

// Rows of table [V,D] for tokens int32 [B,T]: [B,T,D] of the compute type.
Var Embedding(Context& ctx, const Tensor& tokens, const Var& table);
// The mean cross-entropy, in nats, of the predictions hidden [...,D] head [V,D]^T against targets
// int32 (one a row of hidden; negative: does not count), as fp32 [1]. Works through the rows block
// by block: the logits of the whole batch never exist. Where a gradient is wanted it is computed
// along with the loss.
Var HeadLoss(Context& ctx, const Var& hidden, const Var& head, const Tensor& targets);
// The same of logits that are a sum, of x [...,C] weight [V,C]^T over its terms.
struct HeadTerm {
  Var x, weight;
};
Var HeadLoss(Context& ctx, std::span<const HeadTerm> terms, const Tensor& targets);

}  // namespace tessera

#endif  // TESSERA_OPS_ENDS_H_
