#ifndef TESSERA_ARCH_PARTS_NORM_H_
#define TESSERA_ARCH_PARTS_NORM_H_

#include <string>

#include "arch/parameters.h"
#include "ops/norm.h"

namespace tessera {

// Added to the mean square in norms of a head's queries or keys (Dehghani et al. 2023,
// arXiv:2302.05442).
constexpr float kHeadNormEps = 1e-6f;

// A norm over channels with its gain and, of a layer norm, its bias.
class Norm {
 public:
  Norm() = default;
  Norm(Parameters& p, const std::string& name, NormKind kind, double eps, int64_t width);
  Var Of(Context& ctx, const Var& x) const;
  // x + scale f, and the norm of that, in one pass over memory.
  SumAndNorm OfSum(Context& ctx, const Var& x, const Var& f, float scale) const;

 private:
  NormKind kind_ = NormKind::kRms;
  float eps_ = 0;
  Var gain_, bias_;
};

}  // namespace tessera

#endif  // TESSERA_ARCH_PARTS_NORM_H_
