#ifndef TESSERA_TRAIN_RUN_H_
#define TESSERA_TRAIN_RUN_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "train/checkpoint.h"
#include "train/run_folder.h"
#include "train/trainer.h"

// A run directory: config.yaml, metrics.jsonl, TensorBoard events, checkpoints/, tokenizer.json
// where the vocabulary is not bytes.

namespace tessera {

struct RunOptions {
  std::string directory;  // empty: runs/<config name>-<n>, the first n that is free
  RunMode mode = RunMode::kNew;
  std::vector<std::string> overrides;  // keys that may differ from the run's (train/run_identity.h)
  Device device = Device::kCpu;
  std::function<void(int64_t, int64_t)> tokenising;  // told bytes of text done, of how many
};

// Trains to the end (or train.stop_at, or until *interrupted), with a checkpoint at the end. Where
// something stops it on the way (a loss that is not finite, a disk that is full), what the steps
// until then have made is saved before the error is returned. `report` is called after each step.
// kCancelled: interrupted before there was anything to keep.
using StepCallback = std::function<void(const Trainer&, const StepReport&)>;
using MessageCallback = std::function<void(const std::string&)>;
absl::StatusOr<std::string> TrainRun(const RunConfig& config, const RunOptions& options,
                                     const volatile int* interrupted, const StepCallback& report,
                                     const MessageCallback& message);

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
// The newest checkpoint that can be read. Errors say what stands in `directory` instead of a run.
absl::StatusOr<LoadedRun> LoadRun(const std::string& directory, Device device = Device::kCpu);

}  // namespace tessera

#endif  // TESSERA_TRAIN_RUN_H_
