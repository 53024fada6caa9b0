#ifndef TESSERA_TRAIN_READY_CONFIGS_H_
#define TESSERA_TRAIN_READY_CONFIGS_H_

#include <span>
#include <string>

#include "absl/strings/string_view.h"

namespace tessera {

// The files of configs/, built into the program so that they are at hand wherever it is installed.
struct ReadyConfig {
  const char* name;  // quickstart
  const char* text;  // of quickstart.yaml; its first line is a comment that says what it is
  // That line, without the #.
  absl::string_view Summary() const;
};
std::span<const ReadyConfig> ReadyConfigs();  // by name
const ReadyConfig* FindReadyConfig(absl::string_view name);

}  // namespace tessera

#endif  // TESSERA_TRAIN_READY_CONFIGS_H_
