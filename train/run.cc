#include "train/run.h"

#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/parallel.h"
#include "core/status.h"
#include "train/files.h"
#include "train/report.h"
#include "train/tfevents.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

std::string FreeDirectory(const std::string& name) {
  for (int64_t n = 1;; ++n) {
    const std::string path = absl::StrCat("runs/", name, "-", n);
    if (!fs::exists(path)) return path;
  }
}

// What a file says of a tensor; its data is the caller's to set.
TensorView ViewOf(const std::string& name, const Tensor& t) {
  TensorView v{.name = name, .dtype = t.dtype(), .bytes = t.bytes()};
  for (int i = 0; i < t.shape().rank(); ++i) v.shape.push_back(t.dim(i));
  return v;
}

// Copies a checkpoint's array over a tensor of the same name and shape.
absl::Status Restore(const SafetensorsFile& file, const std::string& name, Device device,
                     const Tensor& to) {
  const TensorView* from = file.Find(name);
  const TensorView want = ViewOf(name, to);
  if (from == nullptr || from->shape != want.shape || from->dtype != want.dtype)
    return absl::FailedPreconditionError(
        absl::StrCat("the checkpoint has no ", name, " of shape ", to.shape().ToString(),
                     "; it is of another model. Resume with the config in the run directory"));
  Upload(device, to.raw(), from->data, to.bytes());
  return absl::OkStatus();
}

// metrics.jsonl, cut at the step that a run continues from.
class MetricsFile {
 public:
  ~MetricsFile() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  absl::Status Open(const std::string& path, int64_t after_step) {
    path_ = path;
    std::string kept;
    if (fs::exists(path)) {
      TESSERA_ASSIGN_OR_RETURN(const std::string old, ReadFile(path));
      for (size_t at = 0, end; (end = old.find('\n', at)) != std::string::npos; at = end + 1) {
        const nlohmann::json row = nlohmann::json::parse(old.substr(at, end - at), nullptr, false);
        if (row.is_object() && row.value("step", int64_t{0}) <= after_step)
          kept += old.substr(at, end - at + 1);
      }
    }
    TESSERA_RETURN_IF_ERROR(AtomicWrite(path, kept));
    descriptor_ = open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
    return descriptor_ < 0 ? FileError("open", path, errno) : absl::OkStatus();
  }
  absl::Status Write(const nlohmann::json& row) {
    return WriteAll(descriptor_, row.dump() + "\n", path_);
  }

 private:
  std::string path_;
  int descriptor_ = -1;
};

absl::Status Save(const std::string& directory, const Trainer& trainer, int64_t keep) {
  std::vector<std::vector<char>> copies;  // of what is not in the host's memory
  const auto views = [&](const std::vector<Trainer::Named>& all) {
    std::vector<TensorView> views;
    for (const auto& n : all) {
      views.push_back(ViewOf(n.name, n.tensor));
      views.back().data = n.tensor.raw();
      if (trainer.device() == Device::kCpu) continue;
      copies.emplace_back(static_cast<size_t>(n.tensor.bytes()));
      Download(trainer.device(), copies.back().data(), n.tensor.raw(), n.tensor.bytes());
      views.back().data = copies.back().data();
    }
    return views;
  };
  const std::vector<TensorView> weights = views(trainer.Weights()),
                                moments = views(trainer.Moments());
  return SaveCheckpoint(directory, trainer.step(), {.model = weights, .optimizer = moments},
                        nlohmann::json::object(), keep);
}

absl::Status Resume(const std::string& directory, Trainer* trainer,
                    const std::function<void(const std::string&)>& message) {
  TESSERA_ASSIGN_OR_RETURN(const Checkpoint checkpoint, LoadCheckpoint(directory));
  for (const std::string& w : checkpoint.warnings) message("warning: " + w);
  for (const auto& n : trainer->Weights())
    TESSERA_RETURN_IF_ERROR(Restore(checkpoint.model, n.name, trainer->device(), n.tensor));
  for (const auto& n : trainer->Moments())
    TESSERA_RETURN_IF_ERROR(Restore(checkpoint.optimizer, n.name, trainer->device(), n.tensor));
  trainer->Resume(checkpoint.step);
  message(absl::StrCat("resumed at step ", checkpoint.step));
  return absl::OkStatus();
}

nlohmann::json RowOf(const StepReport& r, int64_t tokens_a_step, double seconds) {
  nlohmann::json row = {{"step", r.step},
                        {"tokens", r.step * tokens_a_step},
                        {"loss", r.loss},
                        {"grad_norm", r.grad_norm},
                        {"lr", r.lr},
                        {"tokens_per_second", static_cast<double>(tokens_a_step) / r.seconds},
                        {"flops_per_second", r.flops / r.seconds},
                        {"mfu", r.mfu},
                        {"seconds", r.seconds},
                        {"elapsed_seconds", seconds}};
  for (const auto& [name, values] : r.metrics) {
    if (values.size() == 1) {
      row[name] = values[0];
    } else {
      row[name] = values;
    }
  }
  return row;
}

}  // namespace

absl::StatusOr<std::string> TrainRun(
    const RunConfig& config, const RunOptions& options, const volatile int* interrupted,
    const std::function<void(const Trainer&, const StepReport&)>& report,
    const std::function<void(const std::string&)>& message) {
  const TrainConfig& t = config.train;
  const DataConfig source = t.data.Config();
  if (source.path.empty())
    return absl::InvalidArgumentError(
        "no data: set train.data.text, train.data.jsonl or train.data.tokens to a file");
  TESSERA_ASSIGN_OR_RETURN(std::shared_ptr<const Tokenizer> tokenizer,
                           LoadTokenizer(config.model.vocab));
  const auto tokenising = [&](int64_t done, int64_t all) {
    if (options.tokenising) options.tokenising(done, all);
    return *interrupted == 0;
  };
  TESSERA_ASSIGN_OR_RETURN(
      const Dataset data,
      Dataset::Open(source, tokenizer, t.seq, {.message = message, .progress = tokenising}));
  const std::string directory =
      options.directory.empty() ? FreeDirectory(config.name) : options.directory;
  if (!options.resume && fs::exists(directory))
    return absl::AlreadyExistsError(absl::StrCat(
        directory, " exists; continue it with --resume, or choose another --run directory"));
  if (options.resume && !fs::exists(directory))
    return absl::NotFoundError(
        absl::StrCat(directory, " does not exist; there is nothing to resume"));
  SetThreads(static_cast<int>(t.threads));
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<Trainer> trainer,
                           Trainer::Create(config, tokenizer->vocab_size(), options.device));
  if (options.resume) TESSERA_RETURN_IF_ERROR(Resume(directory, trainer.get(), message));
  TESSERA_RETURN_IF_ERROR(MakeDirectories(directory));
  TESSERA_RETURN_IF_ERROR(AtomicWrite(directory + "/config.yaml", PrintRunConfig(config)));
  if (const std::string text = tokenizer->Serialize(); !text.empty())
    TESSERA_RETURN_IF_ERROR(AtomicWrite(directory + "/tokenizer.json", text));
  MetricsFile metrics;
  TESSERA_RETURN_IF_ERROR(metrics.Open(directory + "/metrics.jsonl", trainer->step()));
  TESSERA_ASSIGN_OR_RETURN(EventWriter events, EventWriter::Open(directory, trainer->step() + 1));
  const auto start = std::chrono::steady_clock::now();
  // Validation and checkpoints see the model as it is after their step: no step is started ahead of
  // them.
  const auto validates = [&](int64_t step) {
    return t.eval_every > 0 && (step % t.eval_every == 0 || step == t.LastStep()) &&
           data.ValidationBatches(t.batch, t.seq) > 0;
  };
  const auto saves = [&](int64_t step) { return step % t.save_every == 0 && step != t.LastStep(); };
  const auto may_start = [&] {
    const bool more = trainer->step() < t.LastStep() && *interrupted == 0;
    return more &&
           (trainer->started() == 0 || (trainer->started() < trainer->most_started() &&
                                        !validates(trainer->step()) && !saves(trainer->step())));
  };
  while (true) {
    while (may_start()) trainer->Start(data);
    if (trainer->started() == 0) break;
    TESSERA_ASSIGN_OR_RETURN(const StepReport r, trainer->Finish());
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    TESSERA_RETURN_IF_ERROR(metrics.Write(RowOf(r, t.TokensPerStep(), seconds)));
    std::vector<EventWriter::Scalar> scalars = {
        {"loss", r.loss}, {"grad_norm", r.grad_norm}, {"lr", r.lr}, {"mfu", r.mfu}};
    if (validates(r.step)) {
      TESSERA_ASSIGN_OR_RETURN(const Evaluation e, trainer->Evaluate(data, [&](int64_t, int64_t) {
        return *interrupted == 0;
      }));
      if (!e.stopped) {
        TESSERA_RETURN_IF_ERROR(metrics.Write({{"step", r.step},
                                               {"val_loss", e.loss},
                                               {"val_bits_per_byte", e.bits_per_byte},
                                               {"val_tokens", e.tokens}}));
        scalars.push_back({"val_bits_per_byte", e.bits_per_byte});
        message(absl::StrCat("step ", r.step, ": validation ", e.bits_per_byte, " bits per byte"));
      }
    }
    const double wall =
        std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
    TESSERA_RETURN_IF_ERROR(events.Write(r.step, wall, scalars));
    report(*trainer, r);
    if (saves(r.step)) TESSERA_RETURN_IF_ERROR(Save(directory, *trainer, t.keep));
  }
  TESSERA_RETURN_IF_ERROR(Save(directory, *trainer, t.keep));
  const bool cuda = trainer->device() == Device::kCuda;
  message(
      absl::StrFormat("memory of %s at its peak: %.2f GiB for parameters, gradients and moments, "
                      "%.2f for activations",
                      Name(trainer->device()), trainer->parameter_bytes() * 0x1p-30,
                      trainer->activation_peak_bytes() * 0x1p-30) +
      (cuda ? absl::StrFormat(", %.2f for kernels", trainer->cost().cuda_scratch_bytes * 0x1p-30)
            : ""));
  TESSERA_RETURN_IF_ERROR(WriteReport(directory, trainer->cost()));
  return directory;
}

absl::StatusOr<LoadedRun> LoadRun(const std::string& directory, Device device) {
  LoadedRun run;
  run.device = device;
  TESSERA_ASSIGN_OR_RETURN(run.config, ReadRunConfig(directory + "/config.yaml", {}));
  const std::string own = directory + "/tokenizer.json";
  TESSERA_ASSIGN_OR_RETURN(run.tokenizer,
                           LoadTokenizer(fs::exists(own) ? own : run.config.model.vocab));
  TESSERA_RETURN_IF_ERROR(CheckDevice(device, run.config.model, run.tokenizer->vocab_size(),
                                      run.config.train.precision));
  TESSERA_ASSIGN_OR_RETURN(const Checkpoint checkpoint, LoadCheckpoint(directory));
  Arena meta(Arena::Backing::kMeta, 0);
  {
    ParameterSet shapes(&meta, false);
    const Model model(run.config.model, run.tokenizer->vocab_size(), &shapes);
    run.arena = std::make_unique<Arena>(DeviceMemory(device, meta.peak_bytes()));
  }
  run.parameters = std::make_unique<ParameterSet>(run.arena.get(), false);
  run.model =
      std::make_unique<Model>(run.config.model, run.tokenizer->vocab_size(), run.parameters.get());
  for (const Parameter& p : run.parameters->all())
    TESSERA_RETURN_IF_ERROR(Restore(checkpoint.model, p.name, device, p.var.value()));
  run.step = checkpoint.step;
  return run;
}

}  // namespace tessera
