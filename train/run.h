#ifndef TESSERA_TRAIN_RUN_H_
#define TESSERA_TRAIN_RUN_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "train/checkpoint.h"
#include "train/trainer.h"

// A run directory: config.yaml, metrics.jsonl, TensorBoard events, checkpoints/, tokenizer.json
// where the vocabulary is not bytes.

namespace tessera {

struct RunOptions {
  std::string directory;  // empty: runs/<config name>-<n>, the first n that is free
  bool resume = false;
  Device device = Device::kCpu;
  std::function<void(int64_t, int64_t)> tokenising;  // told bytes of text done, of how many
};

// Trains to the end (or train.stop_at, or until *interrupted), with a checkpoint at the end.
// `report` is called after each step.
absl::StatusOr<std::string> TrainRun(
    const RunConfig& config, const RunOptions& options, const volatile int* interrupted,
    const std::function<void(const Trainer&, const StepReport&)>& report,
    const std::function<void(const std::string&)>& message);

// A trained model with what it needs to be used.
struct LoadedRun {
  Device device = Device::kCpu;
  RunConfig config;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<Arena> arena;
  std::unique_ptr<ParameterSet> parameters;
  std::unique_ptr<Model> model;
  int64_t step = 0;
};
absl::StatusOr<LoadedRun> LoadRun(const std::string& directory, Device device = Device::kCpu);

}  // namespace tessera

#endif  // TESSERA_TRAIN_RUN_H_
