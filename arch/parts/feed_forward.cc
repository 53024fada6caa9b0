#include "arch/parts/feed_forward.h"

namespace tessera {

void FeedForward::AddTo(FieldList& f, const char* key, const char* doc) {
  f.Add(key, *this,
        {{"swiglu", {Activation::kSilu, Gating::kGated}},
         {"geglu", {Activation::kGelu, Gating::kGated}},
         {"gelu", {Activation::kGelu, Gating::kPlain}},
         {"relu2", {Activation::kRelu2, Gating::kPlain}},
         {"silu", {Activation::kSilu, Gating::kPlain}}},
        doc);
}

}  // namespace tessera
