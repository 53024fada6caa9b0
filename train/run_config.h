#ifndef TESSERA_TRAIN_RUN_CONFIG_H_
#define TESSERA_TRAIN_RUN_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "arch/model_config.h"
#include "data/dataset.h"
#include "train/objective.h"
#include "train/optimizer.h"
#include "train/schedule.h"

namespace tessera {

// The `train.data:` part of a config: one file, and how to read it.
struct DataKeys {
  std::string text, jsonl, tokens;                 // one of them
  std::string document_separator, document_token;  // of `text`, of `text` and `jsonl`
  double val_fraction = 0.05;
  TokenFileConfig::Encoding encoding = TokenFileConfig::Encoding::kHeader;  // of `tokens`
  std::optional<int64_t> document_id;                                       // of `tokens`

  void Fields(FieldList& f);
  DataConfig Config() const;
  bool HasDocuments() const;  // of which a sequence may hold several
};

// The `train:` part of a config.
struct TrainConfig {
  DataKeys data;
  ObjectiveConfig objective;
  int64_t steps = 500;
  std::optional<int64_t> stop_at;  // stop early and save; the schedule still spans `steps`
  int64_t batch = 16;              // sequences a micro-batch
  int64_t seq = 256;               // tokens a sequence
  int64_t accumulate = 1;          // micro-batches a step
  double lr = 3e-3;
  ScheduleKind schedule = ScheduleKind::kCosine;
  int64_t warmup = 20;
  double final_lr_ratio = 0.1;
  double decay_fraction = 0.2;
  OptimizerConfig optimizer;
  std::vector<std::string> freeze;  // patterns of names of what stays as it is (arch/tuning.h)
  double clip = 1.0;                // of the gradient's norm; 0 does not clip
  DType precision = DType::kF32;
  uint64_t seed = 1;
  int64_t threads = 0;          // 0: one a core
  int64_t eval_every = 100;     // steps; 0 never
  int64_t eval_tokens = 32768;  // of the validation part, at most
  int64_t save_every = 500;     // steps; the last is always saved
  int64_t keep = 2;             // checkpoints

  void Fields(FieldList& f);
  Schedule LearningRate() const;
  // The bounds of its factors (core/sizes.h) keep it far below 2^63.
  int64_t TokensPerStep() const { return batch * seq * accumulate; }
  int64_t LastStep() const { return stop_at ? std::min(*stop_at, steps) : steps; }
};

// A whole config file.
struct RunConfig {
  std::string name;  // of the file, without folder and ending
  ModelConfig model;
  TrainConfig train;
};

// Reads a file, or the ready config of that name, and `key=value` overrides. A status holds every
// mistake, a line each.
absl::StatusOr<RunConfig> ReadRunConfig(const std::string& path,
                                        const std::vector<std::string>& overrides);

// The same for text at hand; `name` stands in messages and names the run.
absl::StatusOr<RunConfig> ParseRunConfig(const std::string& text, const std::string& name,
                                         const std::vector<std::string>& overrides);

// What is allowed and yet hardly meant, a line each: a warm-up that the run never ends, an interval
// longer than the run. For whoever runs or describes the config to tell.
std::vector<std::string> Warnings(const RunConfig& config);

// The resolved config, without the keys that others make dead; reads back equal.
std::string PrintRunConfig(const RunConfig& config);

}  // namespace tessera

#endif  // TESSERA_TRAIN_RUN_CONFIG_H_
