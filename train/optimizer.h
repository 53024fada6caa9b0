#ifndef TESSERA_TRAIN_OPTIMIZER_H_
#define TESSERA_TRAIN_OPTIMIZER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "arch/parameters.h"
#include "config/fields.h"
#include "kernels/optimiser/step.h"

// The contract of an optimiser: one class that moves the parameters, and one row in
// train/optimizer.cc with the keys that it reads. Its states, their names in checkpoints and the
// memory that it takes follow from these.

namespace tessera {

class Optimizer;
struct OptimizerSetup;

// A key of `train:` that an optimiser reads, and its value where nobody sets it.
struct OptimizerKey {
  const char* name;
  double value;
};

// A row of the registry.
struct OptimizerType {
  const char* name;   // the value of train.optimizer
  const char* title;  // AdamW
  const char* paper;
  std::span<const OptimizerKey> keys;
  std::unique_ptr<Optimizer> (*make)(const OptimizerSetup& setup);

  const OptimizerKey* Find(const std::string& key) const;  // null: it does not read this key
};
std::span<const OptimizerType* const> Optimizers();

// The choice, and the keys of all optimisers, which several may share.
struct OptimizerConfig {
  const OptimizerType* type = Optimizers()[0];
  double weight_decay = 0.1;
  std::map<std::string, std::optional<double>> given;

  // Adds them to the keys of `train:`.
  void Fields(FieldList& f);
  double Get(const std::string& key) const;  // as given, or the optimiser's own value
};

struct OptimizerSetup {
  const OptimizerConfig& config;
  const ParameterSet& parameters;
  Arena* arena;  // for states and work space
  Device device;
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  // Moves the parameters by their gradients, all in the device's memory; does nothing once the
  // outcome is halted.
  virtual void Update(const OptimizerStep* step, const StepOutcome* outcome) const = 0;
  // What of a step's numbers depends on how many were made, this one included.
  virtual void SetCorrections(int64_t steps, OptimizerStep* step) const;

  // Every parameter that is trained, in their order.
  const std::vector<OptimizerTensor>& tensors() const { return tensors_; }
  // By the names that they have in a checkpoint.
  struct State {
    std::string name;
    Tensor tensor;
  };
  const std::vector<State>& states() const { return states_; }

 protected:
  // The states of each trained parameter, at most two, each like it, fp32 and zero at first: what
  // their names begin with.
  using StatesOf = std::function<std::vector<std::string>(const Parameter&)>;
  Optimizer(const OptimizerSetup& setup, const StatesOf& states_of);
  Device device() const { return device_; }

 private:
  Device device_;
  std::vector<OptimizerTensor> tensors_;
  std::vector<State> states_;
};

std::unique_ptr<Optimizer> MakeOptimizer(const OptimizerSetup& setup);

}  // namespace tessera

#endif  // TESSERA_TRAIN_OPTIMIZER_H_
