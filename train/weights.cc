#include "train/weights.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "config/flat_values.h"
#include "core/status.h"
#include "io/files.h"
#include "kernels/device/memory.h"
#include "train/run_config.h"
#include "train/run_folder.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr char kConfig[] = "/config.yaml", kTokenizer[] = "/tokenizer.json";

absl::Status FromError(const ModelConfig& config, absl::StatusCode code, const std::string& what) {
  return absl::Status(code, absl::StrCat(config.from_where.ToString(), ": from: ", what));
}

bool IsFile(const std::string& path) {
  const absl::StatusOr<PathKind> kind = KindOf(path);
  return kind.ok() && *kind == PathKind::kFile;
}

bool IsCheckpoint(const std::string& path) { return IsFile(path + "/manifest.json"); }

// The folder of the run that `from` is, or is a checkpoint of.
absl::StatusOr<std::string> RunOf(const std::string& from) {
  if (IsFile(from + kConfig)) return from;
  if (IsCheckpoint(from)) {
    fs::path at = fs::path(from).lexically_normal();
    if (!at.has_filename()) at = at.parent_path();
    const std::string run = (at / ".." / "..").lexically_normal().string();
    if (IsFile(run + kConfig)) return run;
  }
  return absl::NotFoundError(from + RunHint(from, "from: "));
}

// The config that a checkpoint's run was trained with.
absl::StatusOr<RunConfig> ConfigOf(const Checkpoint& checkpoint) {
  const std::string manifest = checkpoint.path + "/manifest.json";
  if (!checkpoint.metadata.empty()) {
    TESSERA_ASSIGN_OR_RETURN(const RunIdentity identity,
                             RunIdentity::FromJson(checkpoint.metadata, manifest));
    return ParseRunConfig(identity.config, manifest + ", its config", {});
  }
  TESSERA_ASSIGN_OR_RETURN(const std::string run, RunOf(checkpoint.path));
  return ReadRunConfig(run + kConfig, {});
}

absl::StatusOr<Checkpoint> NewestOf(const std::string& from) {
  TESSERA_ASSIGN_OR_RETURN(const std::string run, RunOf(from));
  return IsCheckpoint(from) ? ReadCheckpoint(from) : LoadCheckpoint(run);
}

// The checkpoint of `from` with those weights.
absl::StatusOr<Checkpoint> KnownOf(const std::string& from, const BaseReference& known) {
  TESSERA_ASSIGN_OR_RETURN(const std::string run, RunOf(from));
  const std::string name = fs::path(known.checkpoint).filename().string();
  for (const std::string& path : {from, absl::StrCat(run, "/checkpoints/", name)}) {
    if (!IsCheckpoint(path)) continue;
    absl::StatusOr<Checkpoint> checkpoint = ReadCheckpoint(path);
    if (checkpoint.ok() && checkpoint->weights == known.weights) return checkpoint;
  }
  if (absl::StatusOr<Checkpoint> newest = NewestOf(from);
      newest.ok() && newest->weights == known.weights)
    return newest;
  return absl::DataLossError(
      absl::StrCat(from, " does not hold the weights any more that this run began with, ", name,
                   " with the hash ", known.weights.hash.substr(0, 8),
                   "; bring that checkpoint back, or name a folder that has it"));
}

std::string List(std::vector<std::string> lines) {
  constexpr size_t kMost = 20;
  const size_t hidden = lines.size() > kMost ? lines.size() - kMost : 0;
  lines.resize(lines.size() - hidden);
  return absl::StrCat("\n  ", absl::StrJoin(lines, "\n  "),
                      hidden > 0 ? absl::StrCat("\n  and ", hidden, " more") : "");
}

// What of a model its weights do not depend on.
bool IsFree(const std::string& key) {
  return key == "model.from" || key == "model.vocab" || absl::StartsWith(key, "model.adapt") ||
         absl::EndsWith(key, ".recompute");
}

}  // namespace

TensorView ViewOf(const std::string& name, const Tensor& t) {
  TensorView v{.name = name, .dtype = t.dtype(), .bytes = t.bytes()};
  for (int i = 0; i < t.shape().rank(); ++i) v.shape.push_back(t.dim(i));
  return v;
}

absl::Status Restore(const TensorView* from, const std::string& name, Device device,
                     const Tensor& to) {
  const TensorView want = ViewOf(name, to);
  if (from == nullptr || from->shape != want.shape || from->dtype != want.dtype)
    return absl::FailedPreconditionError(
        absl::StrCat("the checkpoint has no ", name, " of shape ", to.shape().ToString(),
                     "; it is of another model. Resume with the config in the run directory"));
  Upload(device, to.raw(), from->data, to.bytes());
  return absl::OkStatus();
}

const TensorView* RunWeights::Find(const std::string& name) const {
  const TensorView* const own = checkpoint.model.Find(name);
  return own != nullptr || base == nullptr ? own : base->Find(name);
}

absl::StatusOr<RunWeights> WeightsOf(Checkpoint checkpoint, const ModelConfig& config) {
  RunWeights weights{.checkpoint = std::move(checkpoint)};
  if (weights.checkpoint.metadata.empty()) return weights;
  TESSERA_ASSIGN_OR_RETURN(
      const RunIdentity identity,
      RunIdentity::FromJson(weights.checkpoint.metadata, weights.checkpoint.path));
  if (!identity.base.needed) return weights;
  TESSERA_ASSIGN_OR_RETURN(RunWeights base, OpenBase(config, identity.base));
  weights.base = std::make_shared<RunWeights>(std::move(base));
  return weights;
}

absl::StatusOr<RunWeights> OpenBase(const ModelConfig& config, const BaseReference& known) {
  absl::StatusOr<Checkpoint> checkpoint =
      known.weights.hash.empty() ? NewestOf(config.from) : KnownOf(config.from, known);
  if (!checkpoint.ok())
    return FromError(config, checkpoint.status().code(),
                     std::string(checkpoint.status().message()));
  TESSERA_ASSIGN_OR_RETURN(const RunConfig own, ConfigOf(*checkpoint));
  return WeightsOf(*std::move(checkpoint), own.model);
}

absl::Status CheckBase(const RunWeights& base, const ModelConfig& config,
                       const std::string& tokenizer_hash) {
  TESSERA_ASSIGN_OR_RETURN(const RunConfig own, ConfigOf(base.checkpoint));
  const auto bad = [&](const std::string& what) {
    return FromError(config, absl::StatusCode::kInvalidArgument, what);
  };
  if (own.model.tuning.lora() != nullptr)
    return bad(absl::StrCat(config.from, " has adapters itself; merge them first: tessera export ",
                            config.from, " --merge -o DIRECTORY"));
  const auto was = FlatValues(PrintModelConfig(own.model), "model"),
             is = FlatValues(PrintModelConfig(config), "model");
  std::vector<std::string> lines;
  for (const std::string& key : Differences(was, is))
    if (!IsFree(key)) lines.push_back(Change(key, was, is));
  if (!base.checkpoint.metadata.empty()) {
    TESSERA_ASSIGN_OR_RETURN(const RunIdentity identity,
                             RunIdentity::FromJson(base.checkpoint.metadata, base.checkpoint.path));
    if (identity.tokenizer_hash != tokenizer_hash)
      lines.push_back(
          absl::StrCat("model.vocab, the tokenizer: ", identity.tokenizer_hash.substr(0, 8), " -> ",
                       tokenizer_hash.substr(0, 8)));
  }
  if (lines.empty()) return absl::OkStatus();
  return bad(absl::StrCat(
      config.from,
      " holds another model than the config (its -> the config's):", List(std::move(lines)),
      "\nleave model.layers and these keys out to ", "have the run's model"));
}

absl::Status LoadBase(const RunWeights& base, const ModelConfig& config, Device device,
                      const ParameterSet& parameters) {
  std::vector<std::string> lines;
  for (const Parameter& p : parameters.all()) {
    if (p.adapter) continue;
    const TensorView* const from = base.Find(p.name);
    const TensorView want = ViewOf(p.name, p.var.value());
    if (from != nullptr && from->shape == want.shape && from->dtype == want.dtype) {
      Upload(device, p.var.value().raw(), from->data, want.bytes);
    } else {
      lines.push_back(absl::StrCat(
          p.name, ": ",
          from == nullptr ? "none" : absl::StrCat("[", absl::StrJoin(from->shape, ","), "]"),
          " -> ", p.shape.ToString()));
    }
  }
  if (lines.empty()) return absl::OkStatus();
  return FromError(config, absl::StatusCode::kInvalidArgument,
                   absl::StrCat(base.checkpoint.path,
                                " has other weights than the config's model (its -> the model's):",
                                List(std::move(lines))));
}

absl::Status InheritModel(ConfigNode* model) {
  const ConfigNode* const from = model->Find("from");
  if (from == nullptr || from->kind != ConfigNode::Kind::kScalar || from->text.empty() ||
      model->Find("layers") != nullptr)
    return absl::OkStatus();
  const absl::StatusOr<std::string> run = RunOf(from->text);
  if (!run.ok()) return from->Error(absl::StrCat("from: ", run.status().message()));
  TESSERA_ASSIGN_OR_RETURN(const ConfigNode root, ReadYamlFile(*run + kConfig));
  const ConfigNode* const theirs = root.Find("model");
  if (theirs == nullptr || theirs->Find("layers") == nullptr)
    return from->Error(absl::StrCat("from: ", *run, kConfig, " has no model"));
  const bool own_vocab = model->Find("vocab") != nullptr;
  std::vector<ConfigNode::Entry> taken;
  for (const ConfigNode::Entry& e : theirs->entries) {
    if (e.key == "from" || e.key == "adapt" || model->Find(e.key) != nullptr) continue;
    taken.push_back(e);
    if (e.key == "vocab" && !own_vocab && IsFile(*run + kTokenizer)) {
      taken.back().value.text = *run + kTokenizer;
      taken.back().value.quoted = true;
    }
  }
  for (ConfigNode::Entry& e : taken) model->entries.push_back(std::move(e));
  return absl::OkStatus();
}

}  // namespace tessera
