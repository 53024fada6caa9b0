#include "train/checkpoint.h"

#include <fcntl.h>
#include <stdio.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/check.h"
#include "core/status.h"
#include "io/files.h"
#include "io/manifest.h"

namespace tessera {
namespace {

// Names that begin so are half-written or half-removed; nobody reads them.
constexpr char kTemporary[] = ".tmp-";
constexpr char kStep[] = "step-", kModel[] = "model.safetensors",
               kOptimizer[] = "optimizer.safetensors", kManifest[] = "manifest.json";

std::string Folder(const std::string& run) { return run + "/checkpoints"; }
std::string StepName(int64_t step) { return absl::StrFormat("%s%08d", kStep, step); }

// The steps that have a checkpoint, rising. A run without the folder has none.
absl::StatusOr<std::vector<int64_t>> Steps(const std::string& run) {
  const absl::StatusOr<std::vector<std::string>> names = NamesIn(Folder(run));
  if (absl::IsNotFound(names.status())) return std::vector<int64_t>();
  if (!names.ok()) return names.status();
  std::vector<int64_t> steps;
  for (const std::string& name : *names) {
    int64_t step;
    if (absl::StartsWith(name, kStep) && absl::SimpleAtoi(name.substr(sizeof(kStep) - 1), &step) &&
        StepName(step) == name)
      steps.push_back(step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

absl::Status RemoveAll(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error && error != std::errc::no_such_file_or_directory)
    return FileError("cannot remove", path, error.value());
  return absl::OkStatus();
}

absl::Status RemoveLeftovers(const std::string& folder) {
  TESSERA_ASSIGN_OR_RETURN(const std::vector<std::string> names, NamesIn(folder));
  for (const std::string& name : names)
    if (absl::StartsWith(name, kTemporary))
      TESSERA_RETURN_IF_ERROR(RemoveAll(absl::StrCat(folder, "/", name)));
  return absl::OkStatus();
}

absl::Status WriteFiles(const std::string& path, int64_t step, const CheckpointTensors& tensors,
                        const nlohmann::json& metadata) {
  Manifest manifest{.step = step, .metadata = metadata};
  const std::pair<const char*, std::span<const TensorView>> parts[] = {
      {kModel, tensors.model}, {kOptimizer, tensors.optimizer}};
  for (const auto& [name, part] : parts) {
    const std::string file = absl::StrCat(path, "/", name);
    TESSERA_RETURN_IF_ERROR(WriteSafetensors(file, part));
    TESSERA_ASSIGN_OR_RETURN(const MappedFile written, MappedFile::Open(file));
    manifest.files[name] = Fingerprint(written.bytes());
  }
  return AtomicWrite(absl::StrCat(path, "/", kManifest), WriteManifest(manifest));
}

// Gives the finished folder its name. One of that name is exchanged in the same instant, so that at
// no time there is none; file systems that cannot exchange get two renames.
absl::Status Publish(const std::string& temporary, const std::string& path) {
  if (rename(temporary.c_str(), path.c_str()) == 0) return absl::OkStatus();
  if (errno != ENOTEMPTY && errno != EEXIST) return FileError("cannot create", path, errno);
  if (renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, path.c_str(), RENAME_EXCHANGE) == 0)
    return absl::OkStatus();  // the old one has the temporary's name now
  const std::string old = temporary + "-old";
  if (rename(path.c_str(), old.c_str()) != 0 || rename(temporary.c_str(), path.c_str()) != 0)
    return FileError("cannot replace", path, errno);
  return absl::OkStatus();
}

// Out of sight first, so that a kill on the way leaves no half of a checkpoint.
absl::Status Prune(const std::string& run, int64_t step, int64_t keep) {
  TESSERA_ASSIGN_OR_RETURN(std::vector<int64_t> steps, Steps(run));
  steps.erase(std::upper_bound(steps.begin(), steps.end(), step), steps.end());
  for (size_t i = 0; i + static_cast<size_t>(keep) < steps.size(); ++i) {
    const std::string path = absl::StrCat(Folder(run), "/", StepName(steps[i]));
    const std::string hidden = absl::StrCat(Folder(run), "/", kTemporary, StepName(steps[i]));
    if (rename(path.c_str(), hidden.c_str()) != 0) return FileError("cannot remove", path, errno);
  }
  return RemoveLeftovers(Folder(run));
}

absl::StatusOr<SafetensorsFile> ReadVerified(const std::string& folder, const char* name,
                                             const Manifest& manifest) {
  const std::string path = absl::StrCat(folder, "/", name);
  const auto expected = manifest.files.find(name);
  if (expected == manifest.files.end())
    return absl::DataLossError(absl::StrCat(folder, ": the manifest does not name ", name));
  TESSERA_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  const Manifest::File got = Fingerprint(file.bytes());
  if (got.bytes != expected->second.bytes)
    return absl::DataLossError(absl::StrCat(path, " has ", got.bytes, " bytes, but ",
                                            expected->second.bytes, " were written"));
  if (got.hash != expected->second.hash)
    return absl::DataLossError(absl::StrCat(path, " is damaged: its hash is ", got.hash,
                                            ", but what was written had ", expected->second.hash));
  return SafetensorsFile::Open(path);
}

absl::Status NoCheckpoint(const std::string& run) {
  return absl::NotFoundError(absl::StrCat("no checkpoint in ", Folder(run),
                                          "; one appears there after train.save_every steps"));
}

}  // namespace

absl::Status SaveCheckpoint(const std::string& run, int64_t step, const CheckpointTensors& tensors,
                            const nlohmann::json& metadata, int64_t keep) {
  TESSERA_CHECK(step >= 0 && keep >= 1, "step %ld, keep %ld", step, keep);
  TESSERA_CHECK(metadata.is_object(), "metadata is %s", metadata.type_name());
  const std::string folder = Folder(run);
  TESSERA_RETURN_IF_ERROR(MakeDirectories(folder));
  TESSERA_RETURN_IF_ERROR(RemoveLeftovers(folder));
  const std::string temporary = absl::StrCat(folder, "/", kTemporary, StepName(step));
  TESSERA_RETURN_IF_ERROR(MakeDirectories(temporary));
  absl::Status status = WriteFiles(temporary, step, tensors, metadata);
  if (status.ok()) status = Publish(temporary, absl::StrCat(folder, "/", StepName(step)));
  if (!status.ok()) {
    RemoveAll(temporary).IgnoreError();  // the first error is the one to tell
    return status;
  }
  TESSERA_RETURN_IF_ERROR(SyncDirectory(folder));
  return Prune(run, step, keep);
}

absl::StatusOr<Checkpoint> ReadCheckpoint(const std::string& path) {
  constexpr int64_t kMaxManifest_bytes = 16 << 20;
  const std::string manifest_path = absl::StrCat(path, "/", kManifest);
  TESSERA_ASSIGN_OR_RETURN(const std::string text, ReadFile(manifest_path, kMaxManifest_bytes));
  TESSERA_ASSIGN_OR_RETURN(Manifest manifest, ReadManifest(text, manifest_path));
  Checkpoint checkpoint{.path = path, .step = manifest.step};
  TESSERA_ASSIGN_OR_RETURN(checkpoint.model, ReadVerified(path, kModel, manifest));
  TESSERA_ASSIGN_OR_RETURN(checkpoint.optimizer, ReadVerified(path, kOptimizer, manifest));
  checkpoint.weights = manifest.files.at(kModel);
  checkpoint.metadata = std::move(manifest.metadata);
  return checkpoint;
}

namespace {

absl::StatusOr<Checkpoint> LoadNewest(const std::string& run, const std::vector<int64_t>& steps) {
  std::vector<std::string> damaged;
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    absl::StatusOr<Checkpoint> checkpoint =
        ReadCheckpoint(absl::StrCat(Folder(run), "/", StepName(*step)));
    if (checkpoint.ok()) {
      for (const std::string& what : damaged)
        checkpoint->warnings.push_back(
            absl::StrCat(what, "; the checkpoint of step ", *step, " is used instead"));
      return checkpoint;
    }
    damaged.push_back(absl::StrCat("the checkpoint of step ", *step,
                                   " is unusable: ", checkpoint.status().message()));
  }
  if (damaged.empty()) return NoCheckpoint(run);
  return absl::DataLossError(absl::StrJoin(damaged, "; "));
}

}  // namespace

absl::StatusOr<Checkpoint> LoadCheckpoint(const std::string& run) {
  // A run that goes on beside us removes old checkpoints; what vanished is looked for again.
  constexpr int kMostTries = 20;
  for (int tries = 1;; ++tries) {
    TESSERA_ASSIGN_OR_RETURN(const std::vector<int64_t> steps, Steps(run));
    absl::StatusOr<Checkpoint> checkpoint = LoadNewest(run, steps);
    if (checkpoint.ok() && checkpoint->warnings.empty()) return checkpoint;
    TESSERA_ASSIGN_OR_RETURN(const std::vector<int64_t> steps_now, Steps(run));
    if (steps_now == steps || tries == kMostTries) return checkpoint;
  }
}

absl::StatusOr<std::string> LatestCheckpoint(const std::string& run) {
  TESSERA_ASSIGN_OR_RETURN(const std::vector<int64_t> steps, Steps(run));
  if (steps.empty()) return NoCheckpoint(run);
  return absl::StrCat(Folder(run), "/", StepName(steps.back()));
}

}  // namespace tessera
