#ifndef TESSERA_TRAIN_OBJECTIVE_H_
#define TESSERA_TRAIN_OBJECTIVE_H_

#include <memory>
#include <string>

#include "arch/model_config.h"
#include "config/fields.h"
#include "data/dataset.h"
#include "data/labelled.h"

namespace tessera {

struct RunConfig;

// What a model is trained to tell, and of which batches: keys of `train:`. An objective is a source
// of batches (data/batches.h); losses of a model's own parts add to it (Context::AddLoss).
struct ObjectiveConfig {
  enum class Kind : uint8_t { kNextToken, kMasked, kClassify } kind = Kind::kNextToken;
  double mask_rate = 0.15;
  std::string mask_token;  // empty: the byte 0
  std::string label = "label";
  LabelledConfig::At label_at = LabelledConfig::At::kLast;
  LabelledConfig::Padding padding = LabelledConfig::Padding::kApart;
  // kStream: each row goes on where it ended in the step before, and the model's state with it.
  enum class Order : uint8_t { kShuffled, kStream } order = Order::kShuffled;

  void Fields(FieldList& f);
  bool is(Kind k) const { return kind == k; }
};

// What the config's model is to be trained on.
TrainingData TrainingDataOf(const RunConfig& config);
// A mistake of the objective that no key alone shows; begins with the keys' paths.
absl::Status CheckObjective(const RunConfig& config);

// The config's batches of `data`, which outlives them; `path` is the file that it was read from.
// Errors: a mask that is no token, a label that is missing or out of range, with its line, fewer
// tokens than the rows of a stream need.
absl::StatusOr<std::shared_ptr<const BatchSource>> MakeBatches(const RunConfig& config,
                                                               const std::string& path,
                                                               const Dataset& data,
                                                               const Tokenizer& tokenizer);

}  // namespace tessera

#endif  // TESSERA_TRAIN_OBJECTIVE_H_
