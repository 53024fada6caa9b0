#include "train/metrics_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "core/status.h"
#include "io/files.h"
#include "io/json.h"

namespace tessera {

MetricsFile::~MetricsFile() {
  if (descriptor_ >= 0) close(descriptor_);
}

absl::Status MetricsFile::Open(const std::string& path, int64_t after_step) {
  path_ = path;
  std::string kept;
  TESSERA_ASSIGN_OR_RETURN(const PathKind kind, KindOf(path));
  if (kind != PathKind::kNothing) {
    TESSERA_ASSIGN_OR_RETURN(const MappedFile old, MappedFile::Open(path));
    absl::string_view rest = old.bytes();
    for (size_t end; (end = rest.find('\n')) != rest.npos; rest.remove_prefix(end + 1)) {
      const nlohmann::json row = nlohmann::json::parse(rest.substr(0, end), nullptr, false);
      if (!row.is_object()) continue;
      const absl::StatusOr<int64_t> step = GetInteger(row, "step", 0, INT64_MAX, path);
      if (step.ok() && *step > after_step) continue;
      if (step.ok() && row.contains("val_loss"))
        last_validation_ = std::max(last_validation_, *step);
      kept.append(rest.data(), end + 1);
    }
  }
  TESSERA_RETURN_IF_ERROR(AtomicWrite(path, kept));
  descriptor_ = open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  return descriptor_ < 0 ? FileError("cannot open", path, errno) : absl::OkStatus();
}

absl::Status MetricsFile::Write(const nlohmann::json& row) {
  return WriteAll(descriptor_, row.dump() + "\n", path_);
}

}  // namespace tessera
