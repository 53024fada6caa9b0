#ifndef TESSERA_TRAIN_METRICS_FILE_H_
#define TESSERA_TRAIN_METRICS_FILE_H_

#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"

namespace tessera {

// metrics.jsonl of a run, a JSON object a line, appended as the run goes.
class MetricsFile {
 public:
  MetricsFile() = default;
  MetricsFile(const MetricsFile&) = delete;
  MetricsFile& operator=(const MetricsFile&) = delete;
  ~MetricsFile();

  // Drops the rows of steps after `after_step`, which a run that goes on from there writes again,
  // and a last line that a kill cut short. Rows of no step, such as a person's notes, stay.
  absl::Status Open(const std::string& path, int64_t after_step);
  absl::Status Write(const nlohmann::json& row);
  // The last step whose validation was in the file when it was opened; 0 if none.
  int64_t last_validation() const { return last_validation_; }

 private:
  std::string path_;
  int descriptor_ = -1;
  int64_t last_validation_ = 0;
};

}  // namespace tessera

#endif  // TESSERA_TRAIN_METRICS_FILE_H_
