#include "train/run_folder.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/status.h"

namespace tessera {
namespace {

// Nothing but what a file system or a killed start may have left.
absl::StatusOr<bool> IsEmpty(const std::string& path) {
  TESSERA_ASSIGN_OR_RETURN(const std::vector<std::string> names, NamesIn(path));
  return std::all_of(names.begin(), names.end(), [](const std::string& name) {
    return name == FolderLock::kName || name == "lost+found" || absl::StrContains(name, ".tmp-");
  });
}

absl::Status Occupied(const std::string& path) {
  return absl::AlreadyExistsError(
      HoldsRun(path)
          ? absl::StrCat(path,
                         " exists; continue it with --resume, or choose another --run "
                         "directory")
          : absl::StrCat(path, " exists and holds other files; choose another --run directory"));
}

absl::Status NoRun(const std::string& path) {
  return absl::NotFoundError(absl::StrCat(path, RunHint(path)));
}

// The last of runs/NAME-1, runs/NAME-2, ...
absl::StatusOr<std::string> NewestRun(const std::string& name) {
  int64_t newest = 0;
  const absl::StatusOr<std::vector<std::string>> names = NamesIn("runs");
  if (!names.ok() && !absl::IsNotFound(names.status())) return names.status();
  for (const std::string& n : names.ok() ? *names : std::vector<std::string>()) {
    int64_t number;
    if (absl::StartsWith(n, name + "-") && absl::SimpleAtoi(n.substr(name.size() + 1), &number) &&
        HoldsRun("runs/" + n))
      newest = std::max(newest, number);
  }
  if (newest > 0) return absl::StrCat("runs/", name, "-", newest);
  return absl::NotFoundError(absl::StrCat("there is no run of ", name,
                                          " in runs/ to resume; name its "
                                          "directory with --run, or start one without --resume"));
}

absl::StatusOr<std::string> MakeNextRun(const std::string& name) {
  for (int64_t n = 1;; ++n) {
    const std::string path = absl::StrCat("runs/", name, "-", n);
    const absl::Status made = MakeNewDirectory(path);
    if (made.ok()) return path;
    if (!absl::IsAlreadyExists(made)) return made;
  }
}

}  // namespace

bool HoldsRun(const std::string& path) {
  const absl::StatusOr<PathKind> config = KindOf(path + "/config.yaml");
  return config.ok() && *config == PathKind::kFile;
}

std::string RunHint(const std::string& path, const std::string& option) {
  const absl::StatusOr<PathKind> kind = KindOf(path);
  if (!kind.ok()) return absl::StrCat(": ", kind.status().message());
  if (*kind == PathKind::kNothing) return " does not exist";
  if (*kind != PathKind::kFolder) return " is a file; a run is a folder";
  // RUN/checkpoints and RUN/checkpoints/step-00000500 are parts of RUN.
  namespace fs = std::filesystem;
  fs::path at = fs::path(path).lexically_normal();
  if (!at.has_filename()) at = at.parent_path();
  for (fs::path up = at.parent_path(); !up.empty(); up = up.parent_path()) {
    if (HoldsRun(up.string()))
      return absl::StrCat(" is a part of a run; use ", option, up.string());
    if (up == up.parent_path()) break;
  }
  std::vector<std::string> inside;
  if (const absl::StatusOr<std::vector<std::string>> names = NamesIn(path); names.ok())
    for (const std::string& name : *names)
      if (HoldsRun(path + "/" + name)) inside.push_back(path + "/" + name);
  if (inside.empty()) return " holds no run (there is no config.yaml in it)";
  const size_t more = inside.size() > 5 ? inside.size() - 5 : 0;
  inside.resize(inside.size() - more);
  return absl::StrCat(" holds runs but is none; use ", option, "with one of ",
                      absl::StrJoin(inside, ", "),
                      more > 0 ? absl::StrCat(" and ", more, " more") : "");
}

absl::Status CheckRunFolder(const std::string& path, RunMode mode) {
  if (path.empty())
    return mode == RunMode::kResumeOrNew
               ? absl::InvalidArgumentError(
                     "--resume-or-start needs --run: the directory that each start goes on in")
               : absl::OkStatus();
  TESSERA_ASSIGN_OR_RETURN(const PathKind kind, KindOf(path));
  if (kind == PathKind::kFile || kind == PathKind::kOther)
    return absl::AlreadyExistsError(absl::StrCat(path, " is a file; a run is a folder"));
  if (mode == RunMode::kResume && (kind == PathKind::kNothing || !HoldsRun(path)))
    return absl::NotFoundError(
        absl::StrCat(path, RunHint(path),
                     "; there is nothing to resume (--resume-or-start starts a "
                     "run where there is none)"));
  if (kind == PathKind::kNothing || mode == RunMode::kResume) return absl::OkStatus();
  if (mode == RunMode::kResumeOrNew && HoldsRun(path)) return absl::OkStatus();
  TESSERA_ASSIGN_OR_RETURN(const bool empty, IsEmpty(path));
  return empty ? absl::OkStatus() : Occupied(path);
}

absl::StatusOr<RunFolder> TakeRunFolder(const std::string& path, const std::string& name,
                                        RunMode mode, std::string* warning) {
  TESSERA_RETURN_IF_ERROR(CheckRunFolder(path, mode));
  RunFolder folder{.path = path};
  if (path.empty()) {
    TESSERA_ASSIGN_OR_RETURN(folder.path,
                             mode == RunMode::kNew ? MakeNextRun(name) : NewestRun(name));
  } else if (mode != RunMode::kResume) {
    const absl::Status made = MakeNewDirectory(path);
    if (!made.ok() && !absl::IsAlreadyExists(made)) return made;
  }
  TESSERA_ASSIGN_OR_RETURN(folder.lock, FolderLock::Take(folder.path, warning));
  // Another process may have had the folder between the look and the lock.
  folder.fresh = !HoldsRun(folder.path);
  if (mode == RunMode::kResume && folder.fresh) return NoRun(folder.path);
  if (mode == RunMode::kNew || folder.fresh) {
    TESSERA_ASSIGN_OR_RETURN(const bool empty, IsEmpty(folder.path));
    if (!empty) return Occupied(folder.path);
  }
  return folder;
}

}  // namespace tessera
