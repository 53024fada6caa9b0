#include "arch/parts/norm.h"

namespace tessera {

Norm::Norm(Parameters& p, const std::string& name, NormKind kind, double eps, int64_t width)
    : kind_(kind), eps_(static_cast<float>(eps)), gain_(p.Gain(name, width)) {
  if (kind == NormKind::kLayer) bias_ = p.Bias(name + "_bias", width);
}

Var Norm::Of(Context& ctx, const Var& x) const {
  return kind_ == NormKind::kRms ? RmsNorm(ctx, x, gain_, eps_)
                                 : LayerNorm(ctx, x, gain_, bias_, eps_);
}

SumAndNorm Norm::OfSum(Context& ctx, const Var& x, const Var& f, float scale) const {
  return kind_ == NormKind::kRms ? AddRmsNorm(ctx, x, f, scale, gain_, eps_)
                                 : AddLayerNorm(ctx, x, f, scale, gain_, bias_, eps_);
}

}  // namespace tessera
