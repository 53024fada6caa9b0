#ifndef TESSERA_TRAIN_RUN_FOLDER_H_
#define TESSERA_TRAIN_RUN_FOLDER_H_

#include <string>

#include "absl/status/statusor.h"
#include "io/files.h"

namespace tessera {

enum class RunMode : uint8_t {
  kNew,          // the folder must be free: not there, or empty
  kResume,       // it must hold a run
  kResumeOrNew,  // either: for jobs that are started again and again with one command line
};

// A run's folder, held by this process alone.
struct RunFolder {
  std::string path;
  bool fresh = true;  // there is no run in it
  FolderLock lock;
};

bool HoldsRun(const std::string& path);

// What TakeRunFolder would refuse, as far as it can be known without making anything: before the
// work that comes between.
absl::Status CheckRunFolder(const std::string& path, RunMode mode);

// Makes or finds the folder and locks it. An empty path is runs/NAME-n: the first n that this
// process makes, or, to resume, the last that is there. `warning` is set where there is something
// to tell.
absl::StatusOr<RunFolder> TakeRunFolder(const std::string& path, const std::string& name,
                                        RunMode mode, std::string* warning);

// For a path that should hold a run and does not: what stands there, and the run that may be meant,
// behind the option or key that names it.
std::string RunHint(const std::string& path, const std::string& option = "--run ");

}  // namespace tessera

#endif  // TESSERA_TRAIN_RUN_FOLDER_H_
