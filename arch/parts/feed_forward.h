#ifndef TESSERA_ARCH_PARTS_FEED_FORWARD_H_
#define TESSERA_ARCH_PARTS_FEED_FORWARD_H_

#include "config/fields.h"
#include "kernels/experts/expert_activation.h"

namespace tessera {

// The hidden function of a feed-forward layer: f(W x), or with a gate f(W_g x) * (W_u x), where W_g
// and W_u are the halves of one projection (Shazeer 2020, arXiv:2002.05202, eq. 6).
struct FeedForward {
  Activation function = Activation::kSilu;
  Gating gating = Gating::kGated;

  void AddTo(FieldList& f, const char* key, const char* doc);
  bool gated() const { return gating == Gating::kGated; }
  // Columns that the first projection has for each of the layer's inner width.
  int64_t halves() const { return gated() ? 2 : 1; }
  bool operator==(const FeedForward&) const = default;
};

}  // namespace tessera

#endif  // TESSERA_ARCH_PARTS_FEED_FORWARD_H_
