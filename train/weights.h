#ifndef TESSERA_TRAIN_WEIGHTS_H_
#define TESSERA_TRAIN_WEIGHTS_H_

#include <memory>
#include <string>

#include "arch/model_config.h"
#include "arch/parameters.h"
#include "train/checkpoint.h"
#include "train/run_identity.h"

// The weights of runs, and of the runs that they began with: `model.from`. A run that does not
// train all of its base's weights saves those that it trains, and refers to the rest.

namespace tessera {

// What a file says of a tensor; its data is the caller's to set.
TensorView ViewOf(const std::string& name, const Tensor& t);

// Copies a checkpoint's array, null where it has none, over a tensor of the same name and shape.
absl::Status Restore(const TensorView* from, const std::string& name, Device device,
                     const Tensor& to);

// A checkpoint, and, where that leaves weights out, what its run began with.
struct RunWeights {
  Checkpoint checkpoint;
  std::shared_ptr<const RunWeights> base;

  const TensorView* Find(const std::string& name) const;
  BaseReference Reference() const {
    return {.checkpoint = checkpoint.path, .weights = checkpoint.weights};
  }
};

// Of a run's checkpoint; `config` is the run's.
absl::StatusOr<RunWeights> WeightsOf(Checkpoint checkpoint, const ModelConfig& config);

// Of config.from: the newest checkpoint of the run, or the checkpoint, that it is; or, where
// `known` has weights, those. kDataLoss where they are not there any more.
absl::StatusOr<RunWeights> OpenBase(const ModelConfig& config, const BaseReference& known = {});

// Whether the base holds the model of the config; an error shows the differences.
absl::Status CheckBase(const RunWeights& base, const ModelConfig& config,
                       const std::string& tokenizer_hash);

// Copies the base's weights over all parameters but adapters of the model's.
absl::Status LoadBase(const RunWeights& base, const ModelConfig& config, Device device,
                      const ParameterSet& parameters);

// The keys of a model that is `from` a run and has no layers of its own: the run's, but for those
// that are set.
absl::Status InheritModel(ConfigNode* model);

}  // namespace tessera

#endif  // TESSERA_TRAIN_WEIGHTS_H_
