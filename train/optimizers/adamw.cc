#include "train/optimizers/adamw.h"

#include <cmath>

#include "kernels/dispatch.h"
#include "kernels/optimiser/adamw.h"

namespace tessera {

void AdamWRule::Update(Device device, std::span<const OptimizerTensor> tensors,
                       const OptimizerStep* step, const StepOutcome* outcome) const {
  Dispatch(device, AdamWArgs{.tensors = tensors.data(),
                             .count = static_cast<int64_t>(tensors.size()),
                             .beta1 = static_cast<float>(beta1_),
                             .beta2 = static_cast<float>(beta2_),
                             .epsilon = static_cast<float>(epsilon_),
                             .step = step,
                             .outcome = outcome});
}

void AdamWRule::SetCorrections(int64_t steps, OptimizerStep* step) const {
  const double made = static_cast<double>(steps);
  step->first_correction = static_cast<float>(1 / (1 - std::pow(beta1_, made)));
  step->second_correction = static_cast<float>(1 / (1 - std::pow(beta2_, made)));
}

namespace {

class AdamW final : public Optimizer {
 public:
  explicit AdamW(const OptimizerSetup& setup)
      : Optimizer(setup, [](const Parameter&) { return AdamWRule::States(); }),
        rule_(setup.config) {}
  void Update(const OptimizerStep* step, const StepOutcome* outcome) const override {
    rule_.Update(device(), tensors(), step, outcome);
  }
  void SetCorrections(int64_t steps, OptimizerStep* step) const override {
    rule_.SetCorrections(steps, step);
  }

 private:
  AdamWRule rule_;
};

}  // namespace

extern constexpr OptimizerType kAdamW = {
    "adamw", "AdamW", "arXiv:1711.05101", kAdamWKeys,
    [](const OptimizerSetup& s) { return std::unique_ptr<Optimizer>(new AdamW(s)); }};

}  // namespace tessera
