#include "kernels/optimiser/momentum.h"

#include "kernels/dispatch.h"
#include "train/optimizer.h"

// Optimisers with one state.

namespace tessera {
namespace {

// Its learning rates are 3 to 10 times smaller than AdamW's, and its weight decay larger by as much
// (section 5).
class Lion final : public Optimizer {
 public:
  explicit Lion(const OptimizerSetup& setup)
      : Optimizer(setup, [](const Parameter&) { return std::vector<std::string>{"lion."}; }),
        beta1_(static_cast<float>(setup.config.Get("beta1"))),
        beta2_(static_cast<float>(setup.config.Get("beta2"))) {}
  void Update(const OptimizerStep* step, const StepOutcome* outcome) const override {
    Dispatch(device(), LionArgs{.tensors = tensors().data(),
                                .count = static_cast<int64_t>(tensors().size()),
                                .beta1 = beta1_,
                                .beta2 = beta2_,
                                .step = step,
                                .outcome = outcome});
  }

 private:
  float beta1_, beta2_;
};

class Sgd final : public Optimizer {
 public:
  explicit Sgd(const OptimizerSetup& setup)
      : Optimizer(setup, [](const Parameter&) { return std::vector<std::string>{"sgd."}; }),
        momentum_(static_cast<float>(setup.config.Get("momentum"))) {}
  void Update(const OptimizerStep* step, const StepOutcome* outcome) const override {
    Dispatch(device(), SgdArgs{.tensors = tensors().data(),
                               .count = static_cast<int64_t>(tensors().size()),
                               .momentum = momentum_,
                               .step = step,
                               .outcome = outcome});
  }

 private:
  float momentum_;
};

constexpr OptimizerKey kLionKeys[] = {{"beta1", 0.9}, {"beta2", 0.99}};
constexpr OptimizerKey kSgdKeys[] = {{"momentum", 0.9}};

}  // namespace

extern constexpr OptimizerType kLion = {
    "lion", "Lion", "arXiv:2302.06675", kLionKeys,
    [](const OptimizerSetup& s) { return std::unique_ptr<Optimizer>(new Lion(s)); }};
extern constexpr OptimizerType kSgd = {
    "sgd", "Stochastic gradient descent with momentum", "Sutskever et al. 2013", kSgdKeys,
    [](const OptimizerSetup& s) { return std::unique_ptr<Optimizer>(new Sgd(s)); }};

}  // namespace tessera
