#include "train/run.h"

#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/catch.h"
#include "core/limits.h"
#include "core/status.h"
#include "io/files.h"
#include "io/json.h"
#include "io/tfevents.h"
#include "train/metrics_file.h"
#include "train/report.h"
#include "train/run_identity.h"
#include "train/weights.h"

namespace tessera {
namespace {

// What a checkpoint says beside its tensors.
struct Progress {
  RunIdentity identity;
  int64_t tokens = 0;  // trained on so far
  double seconds = 0;  // spent in steps so far, over all starts

  nlohmann::json ToJson() const {
    nlohmann::json json = identity.ToJson();
    json["tokens"] = tokens;
    json["elapsed_seconds"] = seconds;
    return json;
  }
  static absl::StatusOr<Progress> FromJson(const nlohmann::json& json, const std::string& where) {
    Progress p;
    TESSERA_ASSIGN_OR_RETURN(p.identity, RunIdentity::FromJson(json, where));
    TESSERA_ASSIGN_OR_RETURN(p.tokens, GetInteger(json, "tokens", 0, INT64_MAX, where));
    const auto seconds = json.find("elapsed_seconds");
    if (seconds != json.end() && seconds->is_number()) p.seconds = seconds->get<double>();
    return p;
  }
};

absl::Status Save(const std::string& directory, Trainer* trainer, const Progress& progress,
                  int64_t keep) {
  std::vector<std::vector<char>> copies;  // of what is not in the host's memory
  const auto views = [&](const std::vector<Trainer::Named>& all) {
    std::vector<TensorView> views;
    for (const auto& n : all) {
      views.push_back(ViewOf(n.name, n.tensor));
      views.back().data = n.tensor.raw();
      if (trainer->device() == Device::kCpu) continue;
      copies.emplace_back(static_cast<size_t>(n.tensor.bytes()));
      Download(trainer->device(), copies.back().data(), n.tensor.raw(), n.tensor.bytes());
      views.back().data = copies.back().data();
    }
    return views;
  };
  std::vector<Trainer::Named> saved;
  for (const Parameter& p : trainer->parameters().all())
    if (!progress.identity.base.needed || p.trainable || p.role == Role::kBuffer)
      saved.push_back({p.name, p.var.value()});
  std::vector<Trainer::Named> state = trainer->OptimizerStates();
  nlohmann::json metadata = progress.ToJson();
  if (CarriedStates* const carried = trainer->carried()) {
    for (const Trainer::Named& value : carried->Values()) state.push_back(value);
    metadata["carried_tokens"] = carried->tokens();
  }
  const std::vector<TensorView> weights = views(saved), states = views(state);
  return SaveCheckpoint(directory, trainer->step(), {.model = weights, .optimizer = states},
                        metadata, keep);
}

// What the run in `folder` is: its newest checkpoint says, or, where there is none yet, its config.
absl::StatusOr<Progress> ProgressOf(const std::string& folder, const Checkpoint* checkpoint,
                                    const MessageCallback& message) {
  if (checkpoint != nullptr && !checkpoint->metadata.empty())
    return Progress::FromJson(checkpoint->metadata, checkpoint->path + "/manifest.json");
  Progress p;
  const std::string path = folder + "/config.yaml";
  TESSERA_ASSIGN_OR_RETURN(p.identity.config, ReadFile(path));
  if (checkpoint == nullptr) return p;
  message(
      "warning: the checkpoint does not say which data it was trained on; only the config is "
      "compared");
  TESSERA_ASSIGN_OR_RETURN(const RunConfig config, ParseRunConfig(p.identity.config, path, {}));
  p.tokens = checkpoint->step * config.train.TokensPerStep();
  return p;
}

// The weights that the run is to begin with, undefined without any; an error where the config's
// model is not theirs.
absl::StatusOr<std::optional<RunWeights>> BaseFor(const ModelConfig& config,
                                                  const RunIdentity& identity) {
  if (config.from.empty()) return std::optional<RunWeights>();
  TESSERA_ASSIGN_OR_RETURN(RunWeights base, OpenBase(config));
  TESSERA_RETURN_IF_ERROR(CheckBase(base, config, identity.tokenizer_hash));
  return std::optional<RunWeights>(std::move(base));
}

// Puts the trainer at the start of the run.
absl::Status Begin(const ModelConfig& config, const std::optional<RunWeights>& base,
                   Trainer* trainer, RunIdentity* identity) {
  if (!base) return absl::OkStatus();
  TESSERA_RETURN_IF_ERROR(LoadBase(*base, config, trainer->device(), trainer->parameters()));
  identity->base = base->Reference();
  for (const Parameter& p : trainer->parameters().all())
    if (!p.trainable && p.role != Role::kBuffer) identity->base.needed = true;
  return absl::OkStatus();
}

// Puts the trainer where the run in `folder` stopped; `now` is what is asked for, and is left with
// the run's progress.
absl::Status Resume(const RunFolder& folder, const ModelConfig& config, const RunOptions& options,
                    Trainer* trainer, Progress* now, const MessageCallback& message) {
  absl::StatusOr<Checkpoint> checkpoint = LoadCheckpoint(folder.path);
  if (!checkpoint.ok() && !absl::IsNotFound(checkpoint.status())) return checkpoint.status();
  const Checkpoint* const found = checkpoint.ok() ? &*checkpoint : nullptr;
  TESSERA_ASSIGN_OR_RETURN(const Progress was, ProgressOf(folder.path, found, message));
  TESSERA_ASSIGN_OR_RETURN(
      const std::vector<std::string> changes,
      CheckContinues(was.identity, now->identity, options.overrides, folder.path));
  for (const std::string& change : changes) message("changed: " + change);
  if (found == nullptr) {
    message(folder.path + " has no checkpoint yet; it starts at its first step");
    TESSERA_ASSIGN_OR_RETURN(const std::optional<RunWeights> base, BaseFor(config, now->identity));
    return Begin(config, base, trainer, &now->identity);
  }
  for (const std::string& w : found->warnings) message("warning: " + w);
  if (found->optimizer.tensors().empty() && !trainer->OptimizerStates().empty())
    return absl::FailedPreconditionError(
        absl::StrCat(found->path,
                     " was exported, without the states of an optimiser, so that it cannot go on; "
                     "begin a run with its weights: model.from=",
                     folder.path));
  TESSERA_ASSIGN_OR_RETURN(const RunWeights weights, WeightsOf(*std::move(checkpoint), config));
  for (const auto& n : trainer->Weights())
    TESSERA_RETURN_IF_ERROR(Restore(weights.Find(n.name), n.name, trainer->device(), n.tensor));
  for (const auto& n : trainer->OptimizerStates())
    TESSERA_RETURN_IF_ERROR(
        Restore(weights.checkpoint.optimizer.Find(n.name), n.name, trainer->device(), n.tensor));
  trainer->Resume(weights.checkpoint.step);
  if (CarriedStates* const carried = trainer->carried()) {
    const std::string where = weights.checkpoint.path + "/manifest.json";
    TESSERA_ASSIGN_OR_RETURN(
        const int64_t tokens,
        GetInteger(weights.checkpoint.metadata, "carried_tokens", 0, INT64_MAX, where));
    TESSERA_RETURN_IF_ERROR(carried->Restore(weights.checkpoint.optimizer, tokens));
  }
  now->identity.base = was.identity.base;
  now->tokens = was.tokens;
  now->seconds = was.seconds;
  message(absl::StrCat("resumed at step ", weights.checkpoint.step));
  return absl::OkStatus();
}

nlohmann::json RowOf(const StepReport& r, int64_t tokens_a_step, const Progress& progress) {
  nlohmann::json row = {{"step", r.step},
                        {"tokens", progress.tokens},
                        {"loss", r.loss},
                        {"grad_norm", r.grad_norm},
                        {"lr", r.lr},
                        {"tokens_per_second", static_cast<double>(tokens_a_step) / r.seconds},
                        {"flops_per_second", r.flops / r.seconds},
                        {"mfu", r.mfu},
                        {"seconds", r.seconds},
                        {"elapsed_seconds", progress.seconds}};
  for (const auto& [name, values] : r.metrics) {
    if (values.size() == 1) {
      row[name] = values[0];
    } else {
      row[name] = values;
    }
  }
  return row;
}

// A run in its folder, from the step that the trainer stands at to the last.
class Session {
 public:
  Session(const RunConfig& config, const BatchSource& data, const std::string& folder,
          Progress progress, Trainer* trainer)
      : t_(config.train),
        data_(data),
        folder_(folder),
        progress_(std::move(progress)),
        trainer_(*trainer),
        saved_step_(trainer->step()) {}

  absl::Status Open() {
    TESSERA_RETURN_IF_ERROR(metrics_.Open(folder_ + "/metrics.jsonl", trainer_.step()));
    TESSERA_ASSIGN_OR_RETURN(EventWriter events, EventWriter::Open(folder_, trainer_.step() + 1));
    events_.emplace(std::move(events));
    start_seconds_ = progress_.seconds;
    return absl::OkStatus();
  }

  absl::Status Train(const volatile int* interrupted, const StepCallback& report,
                     const MessageCallback& message) {
    // A run that was interrupted may have left its last validation out.
    if (const int64_t step = trainer_.step();
        step > 0 && Validates(step) && metrics_.last_validation() < step)
      TESSERA_RETURN_IF_ERROR(Validate(step, interrupted, message));
    // Validation and checkpoints see the model as it is after their step: no step is started ahead
    // of them.
    const auto may_start = [&] {
      const bool more = trainer_.step() < t_.LastStep() && *interrupted == 0;
      return more &&
             (trainer_.started() == 0 || (trainer_.started() < trainer_.most_started() &&
                                          !Validates(trainer_.step()) && !Saves(trainer_.step())));
    };
    while (true) {
      while (may_start()) trainer_.Start(data_);
      if (trainer_.started() == 0) return absl::OkStatus();
      TESSERA_ASSIGN_OR_RETURN(const StepReport r, trainer_.Finish());
      TESSERA_RETURN_IF_ERROR(Note(r, interrupted, message));
      report(trainer_, r);
      if (Saves(r.step)) TESSERA_RETURN_IF_ERROR(SaveNow());
    }
  }

  // Keeps what the steps have made that no checkpoint has. Steps still on the way are finished.
  absl::Status SaveRest() {
    while (trainer_.started() > 0) {
      const absl::StatusOr<StepReport> r = trainer_.Finish();
      if (r.ok()) Count();
    }
    return trainer_.step() == saved_step_ ? absl::OkStatus() : SaveNow();
  }
  int64_t saved_step() const { return saved_step_; }

 private:
  bool Validates(int64_t step) const {
    return t_.eval_every > 0 && (step % t_.eval_every == 0 || step == t_.LastStep()) &&
           data_.ValidationBatches(t_.batch, t_.seq) > 0;
  }
  bool Saves(int64_t step) const { return step % t_.save_every == 0 && step != t_.LastStep(); }

  void Count() {
    progress_.tokens += t_.TokensPerStep();
    progress_.seconds =
        start_seconds_ +
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

  // A finished step, in metrics.jsonl and for TensorBoard, and its validation.
  absl::Status Note(const StepReport& r, const volatile int* interrupted,
                    const MessageCallback& message) {
    Count();
    TESSERA_RETURN_IF_ERROR(metrics_.Write(RowOf(r, t_.TokensPerStep(), progress_)));
    TESSERA_RETURN_IF_ERROR(Event(
        r.step, {{"loss", r.loss}, {"grad_norm", r.grad_norm}, {"lr", r.lr}, {"mfu", r.mfu}}));
    return Validates(r.step) ? Validate(r.step, interrupted, message) : absl::OkStatus();
  }

  absl::Status Validate(int64_t step, const volatile int* interrupted,
                        const MessageCallback& message) {
    TESSERA_ASSIGN_OR_RETURN(const Evaluation e, trainer_.Evaluate(data_, [&](int64_t, int64_t) {
      return *interrupted == 0;
    }));
    if (e.stopped) return absl::OkStatus();
    const auto [name, value, unit] = e.Headline();
    const std::string key = std::string("val_") + name;
    TESSERA_RETURN_IF_ERROR(metrics_.Write(
        {{"step", step}, {"val_loss", e.loss}, {key, value}, {"val_tokens", e.tokens}}));
    message(absl::StrCat("step ", step, ": validation ", value, " ", unit));
    return Event(step, {{key, value}});
  }

  absl::Status Event(int64_t step, const std::vector<EventWriter::Scalar>& scalars) {
    const double wall =
        std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
    return events_->Write(step, wall, scalars);
  }

  absl::Status SaveNow() {
    TESSERA_RETURN_IF_ERROR(Save(folder_, &trainer_, progress_, t_.keep));
    saved_step_ = trainer_.step();
    return absl::OkStatus();
  }

  const TrainConfig& t_;
  const BatchSource& data_;
  std::string folder_;
  Progress progress_;
  Trainer& trainer_;
  int64_t saved_step_;
  MetricsFile metrics_;
  std::optional<EventWriter> events_;
  double start_seconds_ = 0;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// What stopped a run, and what became of it.
absl::Status Stopped(const absl::Status& why, const absl::Status& saved, const std::string& folder,
                     int64_t step) {
  std::string kept = absl::StrCat("; nothing was trained that is not saved in ", folder);
  if (!saved.ok()) {
    kept =
        absl::StrCat("; and the steps since step ", step, " could not be saved: ", saved.message());
  } else if (step > 0) {
    kept = absl::StrCat("; the state of step ", step, " is saved in ", folder,
                        ", --resume goes on from there");
  }
  return absl::Status(why.code(), absl::StrCat(why.message(), kept));
}

void TellMemory(const Trainer& trainer, const MessageCallback& message) {
  const bool cuda = trainer.device() == Device::kCuda;
  message(
      absl::StrFormat("memory of %s at its peak: %.2f GiB for parameters, gradients and moments, "
                      "%.2f for activations",
                      Name(trainer.device()), trainer.parameter_bytes() * 0x1p-30,
                      trainer.activation_peak_bytes() * 0x1p-30) +
      (cuda ? absl::StrFormat(", %.2f for kernels", trainer.cost().cuda_scratch_bytes * 0x1p-30)
            : ""));
}

// Whether training would change anything.
absl::Status CheckTrains(const ModelConfig& config, int64_t vocab_size) {
  Arena arena(Arena::Backing::kMeta, 0);
  ParameterSet parameters(&arena, false);
  const Model model(config, vocab_size, &parameters);
  if (parameters.trains()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "there is nothing to train: every parameter is frozen; give model.adapt.lora a rank of 1 or "
      "more, or take patterns away from train.freeze");
}

absl::StatusOr<std::string> Run(const RunConfig& config, const RunOptions& options,
                                const volatile int* interrupted, const StepCallback& report,
                                const MessageCallback& message) {
  const TrainConfig& t = config.train;
  const DataConfig source = t.data.Config();
  if (source.path.empty())
    return absl::InvalidArgumentError(
        "no data: set train.data.text, train.data.jsonl or train.data.tokens to a file");
  TESSERA_RETURN_IF_ERROR(CheckRunFolder(options.directory, options.mode));
  TESSERA_ASSIGN_OR_RETURN(std::shared_ptr<const Tokenizer> tokenizer,
                           LoadTokenizer(config.model.vocab));
  const auto tokenising = [&](int64_t done, int64_t all) {
    if (options.tokenising) options.tokenising(done, all);
    return *interrupted == 0;
  };
  TESSERA_ASSIGN_OR_RETURN(
      const Dataset data,
      Dataset::Open(source, tokenizer, t.seq, {.message = message, .progress = tokenising}));
  TESSERA_ASSIGN_OR_RETURN(const std::shared_ptr<const BatchSource> batches,
                           MakeBatches(config, source.path, data, *tokenizer));
  Progress progress;
  TESSERA_ASSIGN_OR_RETURN(progress.identity, IdentityOf(config, *tokenizer));
  TESSERA_ASSIGN_OR_RETURN(const std::string threads, UseThreads(t.threads));
  if (!threads.empty()) message(threads);
  TESSERA_RETURN_IF_ERROR(CheckTrains(config.model, tokenizer->vocab_size()));
  // What a new run begins with is looked at before anything is made.
  std::optional<RunWeights> base;
  const bool is_new = !HoldsRun(options.directory) || options.mode == RunMode::kNew;
  if (options.mode != RunMode::kResume && is_new) {
    TESSERA_ASSIGN_OR_RETURN(base, BaseFor(config.model, progress.identity));
  }
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<Trainer> trainer,
                           Trainer::Create(config, tokenizer->vocab_size(), options.device));
  if (*interrupted != 0)
    return absl::CancelledError("interrupted before the first step; nothing was written");
  std::string warning;
  TESSERA_ASSIGN_OR_RETURN(const RunFolder folder,
                           TakeRunFolder(options.directory, config.name, options.mode, &warning));
  if (!warning.empty()) message("warning: " + warning);
  TESSERA_RETURN_IF_ERROR(
      folder.fresh ? Begin(config.model, base, trainer.get(), &progress.identity)
                   : Resume(folder, config.model, options, trainer.get(), &progress, message));
  TESSERA_RETURN_IF_ERROR(AtomicWrite(folder.path + "/config.yaml", progress.identity.config));
  if (const std::string text = tokenizer->Serialize(); !text.empty())
    TESSERA_RETURN_IF_ERROR(AtomicWrite(folder.path + "/tokenizer.json", text));
  Session session(config, *batches, folder.path, std::move(progress), trainer.get());
  TESSERA_RETURN_IF_ERROR(session.Open());
  const absl::Status ended =
      CatchErrors([&] { return session.Train(interrupted, report, message); });
  const absl::Status saved = CatchErrors([&] { return session.SaveRest(); });
  if (!ended.ok()) return Stopped(ended, saved, folder.path, session.saved_step());
  TESSERA_RETURN_IF_ERROR(saved);
  TellMemory(*trainer, message);
  TESSERA_RETURN_IF_ERROR(WriteReport(folder.path, trainer->cost()));
  return folder.path;
}

}  // namespace

absl::StatusOr<std::string> TrainRun(const RunConfig& config, const RunOptions& options,
                                     const volatile int* interrupted, const StepCallback& report,
                                     const MessageCallback& message) {
  return CatchErrors([&] { return Run(config, options, interrupted, report, message); });
}

namespace {

absl::StatusOr<LoadedRun> Load(const std::string& directory, Device device) {
  LoadedRun run;
  run.device = device;
  TESSERA_ASSIGN_OR_RETURN(const PathKind config, KindOf(directory + "/config.yaml"));
  if (config != PathKind::kFile) return absl::NotFoundError(directory + RunHint(directory));
  TESSERA_ASSIGN_OR_RETURN(run.config, ReadRunConfig(directory + "/config.yaml", {}));
  const std::string own = directory + "/tokenizer.json";
  TESSERA_ASSIGN_OR_RETURN(const PathKind tokenizer, KindOf(own));
  TESSERA_ASSIGN_OR_RETURN(
      run.tokenizer, LoadTokenizer(tokenizer == PathKind::kNothing ? run.config.model.vocab : own));
  TESSERA_RETURN_IF_ERROR(CheckDevice(device, run.config.model, run.tokenizer->vocab_size(),
                                      run.config.train.precision));
  TESSERA_ASSIGN_OR_RETURN(Checkpoint checkpoint, LoadCheckpoint(directory));
  TESSERA_ASSIGN_OR_RETURN(const RunWeights weights,
                           WeightsOf(std::move(checkpoint), run.config.model));
  Arena meta(Arena::Backing::kMeta, 0);
  {
    ParameterSet shapes(&meta, false);
    const Model model(run.config.model, run.tokenizer->vocab_size(), &shapes);
    if (device == Device::kCpu)
      TESSERA_RETURN_IF_ERROR(CheckMemory(meta.peak_bytes(), "the model in " + directory,
                                          "free some or raise the limit"));
    run.arena = std::make_unique<Arena>(DeviceMemory(device, meta.peak_bytes()));
  }
  run.parameters = std::make_unique<ParameterSet>(run.arena.get(), false);
  run.model =
      std::make_unique<Model>(run.config.model, run.tokenizer->vocab_size(), run.parameters.get());
  for (const Parameter& p : run.parameters->all())
    TESSERA_RETURN_IF_ERROR(Restore(weights.Find(p.name), p.name, device, p.var.value()));
  run.step = weights.checkpoint.step;
  return run;
}

}  // namespace

absl::StatusOr<LoadedRun> LoadRun(const std::string& directory, Device device) {
  return CatchErrors([&] { return Load(directory, device); });
}

}  // namespace tessera
