#ifndef TESSERA_TRAIN_CHECKPOINT_H_
#define TESSERA_TRAIN_CHECKPOINT_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "io/manifest.h"
#include "io/safetensors.h"

namespace tessera {

// Checkpoints of a run, in RUN/checkpoints/step-00000500/:
//   model.safetensors, optimizer.safetensors
//   manifest.json    step, the caller's metadata, and of each file its size and XXH3-128 hash;
//                    the last line is the hash of the manifest itself
// One appears whole under its name or not at all, whatever kills the run, and every damage to it is
// noticed when it is read. (Integrity, not authenticity: the hashes keep no forger out.)

struct CheckpointTensors {
  std::span<const TensorView> model, optimizer;
};

// Writes the checkpoint of `step` (in place of one of the same step), then removes the oldest of
// those up to this step until `keep` >= 1 are left, and what a killed run left half-written. On an
// error, such as a full disk, the checkpoints that were there are as before.
absl::Status SaveCheckpoint(const std::string& run, int64_t step, const CheckpointTensors& tensors,
                            const nlohmann::json& metadata, int64_t keep);

struct Checkpoint {
  std::string path;
  int64_t step = 0;
  nlohmann::json metadata;
  SafetensorsFile model, optimizer;
  Manifest::File weights;             // of the model's file
  std::vector<std::string> warnings;  // newer checkpoints that were damaged, for the user to read
};

// The newest checkpoint whose hashes are right. kNotFound if the run has none, kDataLoss if all are
// damaged.
absl::StatusOr<Checkpoint> LoadCheckpoint(const std::string& run);

// The checkpoint in one folder, with its hashes checked.
absl::StatusOr<Checkpoint> ReadCheckpoint(const std::string& path);

// The folder of the newest checkpoint, not looked into; kNotFound if the run has none.
absl::StatusOr<std::string> LatestCheckpoint(const std::string& run);

}  // namespace tessera

#endif  // TESSERA_TRAIN_CHECKPOINT_H_
