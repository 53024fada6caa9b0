#include "train/ready_configs.h"

namespace tessera {

const ReadyConfig* FindReadyConfig(absl::string_view name) {
  for (const ReadyConfig& c : ReadyConfigs())
    if (name == c.name) return &c;
  return nullptr;
}

absl::string_view ReadyConfig::Summary() const {
  absl::string_view line(text);
  line = line.substr(0, line.find('\n'));
  return line.substr(0, 2) == "# " ? line.substr(2) : absl::string_view();
}

}  // namespace tessera
