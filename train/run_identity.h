#ifndef TESSERA_TRAIN_RUN_IDENTITY_H_
#define TESSERA_TRAIN_RUN_IDENTITY_H_

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/tokenizer.h"
#include "io/manifest.h"
#include "train/run_config.h"

namespace tessera {

// The weights that a run began with: a checkpoint of its base (`model.from`).
struct BaseReference {
  std::string checkpoint;  // its folder
  Manifest::File weights;  // empty hash: there is no base
  bool needed = false;     // the run's own checkpoints leave out what it does not train
};

// What a run is, as its checkpoints keep it: the whole config, and the bytes of its data, tokenizer
// and base. A run goes on only as what it was.
struct RunIdentity {
  std::string config;          // as PrintRunConfig writes it
  Manifest::File data;         // empty hash: not known
  std::string tokenizer_hash;  // empty: not known; "bytes": the byte tokenizer
  BaseReference base;

  nlohmann::json ToJson() const;
  static absl::StatusOr<RunIdentity> FromJson(const nlohmann::json& json, absl::string_view where);
};

std::string HashOf(const Tokenizer& tokenizer);

// Reads the data file once, for its hash.
absl::StatusOr<RunIdentity> IdentityOf(const RunConfig& config, const Tokenizer& tokenizer);

// The keys that may change when a run goes on, since they change nothing of what is trained but
// how far, how often it is looked at and on how many threads. They are in --help.
const std::vector<std::string>& KeysThatMayChange();

// Whether a run that was `old` may go on as `now`: the differences that `overrides` names (a key,
// or the part of one up to a dot or bracket, such as train.lr, train.data or model.layers[2]) or
// that may change, in words. An error lists all that may not, and how to allow them; `where` is the
// run. A file that moved without a change is the same; one whose contents changed is not.
absl::StatusOr<std::vector<std::string>> CheckContinues(const RunIdentity& old,
                                                        const RunIdentity& now,
                                                        const std::vector<std::string>& overrides,
                                                        const std::string& where);

}  // namespace tessera

#endif  // TESSERA_TRAIN_RUN_IDENTITY_H_
