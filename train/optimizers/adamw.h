#ifndef TESSERA_TRAIN_OPTIMIZERS_ADAMW_H_
#define TESSERA_TRAIN_OPTIMIZERS_ADAMW_H_

#include "train/optimizer.h"

// AdamW of some parameters: of all, or of those that another optimiser leaves to it.

namespace tessera {

inline constexpr OptimizerKey kAdamWKeys[] = {{"beta1", 0.9}, {"beta2", 0.95}, {"epsilon", 1e-8}};

class AdamWRule {
 public:
  explicit AdamWRule(const OptimizerConfig& c)
      : beta1_(c.Get("beta1")), beta2_(c.Get("beta2")), epsilon_(c.Get("epsilon")) {}
  static std::vector<std::string> States() { return {"m.", "v."}; }
  void Update(Device device, std::span<const OptimizerTensor> tensors, const OptimizerStep* step,
              const StepOutcome* outcome) const;
  void SetCorrections(int64_t steps, OptimizerStep* step) const;

 private:
  double beta1_, beta2_, epsilon_;
};

}  // namespace tessera

#endif  // TESSERA_TRAIN_OPTIMIZERS_ADAMW_H_
