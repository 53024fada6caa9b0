#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <ctime>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tools/command.h"
#include "tools/tokenising.h"
#include "train/run.h"
#include "train/run_identity.h"

namespace tessera {
namespace {

// Set by what asks a run to end: Ctrl-C, a batch system before its time is over (SIGTERM, SIGUSR1,
// SIGXCPU), a terminal that closes (SIGHUP). The run finishes its step, saves and ends. Several of
// them may come together; only Ctrl-C pressed again, a while after the first, ends it at once.
volatile int interrupted = 0;
timespec first_interrupt;
void OnSignal(int signal) {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  if (interrupted == 0) {
    first_interrupt = now;
    interrupted = 1;
  } else if (signal == SIGINT && now.tv_sec > first_interrupt.tv_sec + 1) {
    _exit(130);
  }
}

void CatchSignals() {
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1, SIGXCPU}) std::signal(signal, OnSignal);
  // nohup has it ignored, and wants that.
  if (std::signal(SIGHUP, OnSignal) == SIG_IGN) std::signal(SIGHUP, SIG_IGN);
}

struct Options {
  std::string config, run, device = "auto";
  std::vector<std::string> overrides, may_differ;
  bool resume = false, resume_or_start = false, quiet = false;
  int64_t threads = -1, seed = -1;
};

// One line that moves on a terminal, a line now and then in a pipe.
class Progress {
 public:
  Progress(const RunConfig& config, bool quiet)
      : last_step_(config.train.LastStep()),
        tokens_(config.train.TokensPerStep()),
        quiet_(quiet),
        terminal_(isatty(STDERR_FILENO) != 0) {}
  void Step(const StepReport& r) {
    using Clock = std::chrono::steady_clock;
    const auto now = Clock::now();
    const auto pause = terminal_ ? std::chrono::milliseconds(100) : std::chrono::seconds(5);
    if (quiet_ || (now - shown_ < pause && r.step != last_step_)) return;
    shown_ = now;
    const double left = r.seconds * static_cast<double>(last_step_ - r.step);
    std::fprintf(
        stderr,
        "%sstep %ld/%ld  loss %.4f  %.0f tokens/s  %.1f GFLOP/s  MFU %.0f %%  %.0f s left%s",
        terminal_ ? "\r\033[K" : "", static_cast<long>(r.step), static_cast<long>(last_step_),
        r.loss, static_cast<double>(tokens_) / r.seconds, r.flops / r.seconds * 1e-9, r.mfu * 100,
        left, terminal_ && r.step != last_step_ ? "" : "\n");
  }
  // Warnings are no progress: they come through even where that is not wanted.
  void Say(const std::string& text) const {
    if (!quiet_ || text.rfind("warning: ", 0) == 0)
      std::fprintf(stderr, "%s%s\n", terminal_ ? "\r\033[K" : "", text.c_str());
  }

 private:
  int64_t last_step_, tokens_;
  bool quiet_, terminal_;
  std::chrono::steady_clock::time_point shown_{};
};

int Train(const Options& o) {
  if (!o.may_differ.empty() && !o.resume && !o.resume_or_start)
    return Fail(absl::InvalidArgumentError("--override is for a run that goes on: add --resume"),
                kMistake);
  absl::StatusOr<RunConfig> config = ReadRunConfig(o.config, o.overrides);
  if (!config.ok()) return Fail(config.status(), 2);
  if (o.threads >= 0) config->train.threads = o.threads;
  if (o.seed >= 0) config->train.seed = static_cast<uint64_t>(o.seed);
  Progress progress(*config, o.quiet);
  std::string line;
  const absl::StatusOr<Device> device = OpenDevice(o.device, &line);
  if (!device.ok()) return Fail(device.status(), 1);
  progress.Say(line);
  for (const std::string& w : Warnings(*config)) progress.Say("warning: " + w);
  CatchSignals();
  const absl::StatusOr<std::string> directory = TrainRun(
      *config,
      {.directory = o.run,
       .mode = o.resume_or_start ? RunMode::kResumeOrNew
               : o.resume        ? RunMode::kResume
                                 : RunMode::kNew,
       .overrides = o.may_differ,
       .device = *device,
       .tokenising = o.quiet ? nullptr : ShowTokenising},
      &interrupted, [&](const Trainer&, const StepReport& r) { progress.Step(r); },
      [&](const std::string& text) { progress.Say(text); });
  if (absl::IsCancelled(directory.status())) return Fail(directory.status(), 130);
  if (!directory.ok()) return Fail(directory.status(), CodeOf(directory.status()));
  std::printf("%s\n", directory->c_str());
  return interrupted != 0 ? 130 : 0;
}

// "adamw: AdamW, arXiv:1711.05101; beta1 0.9, beta2 0.95, epsilon 1e-08", a line each.
std::string OptimizerLines() {
  std::string lines = "Optimisers, the values of train.optimizer, and what their keys are unset:";
  for (const OptimizerType* type : Optimizers()) {
    absl::StrAppend(&lines, "\n  ", type->name, ": ", type->title, ", ", type->paper);
    const char* before = "; ";
    for (const OptimizerKey& key : type->keys) {
      absl::StrAppend(&lines, before, key.name, " ", key.value);
      before = ", ";
    }
  }
  return lines;
}

}  // namespace

void AddTrain(CLI::App* app, int* code) {
  auto o = std::make_shared<Options>();
  CLI::App* c = app->add_subcommand("train", "train a config; Ctrl-C saves and ends");
  c->add_option("config", o->config, "a YAML file")->required();
  c->add_option("overrides", o->overrides,
                "key=value, such as train.lr=1e-3; '~key' takes a key away");
  c->add_option("--run", o->run, "run directory (default runs/<config name>-<n>)");
  CLI::Option* const resume = c->add_flag(
      "--resume", o->resume,
      "continue the run from its last checkpoint; without --run the config's last in runs/");
  c->add_flag("--resume-or-start", o->resume_or_start,
              "continue the run in --run, or start it there: for jobs that are started again")
      ->excludes(resume);
  c->add_option("--override", o->may_differ,
                "with --resume: a key that may differ from the run's, such as train.lr; without it "
                "may differ: " +
                    absl::StrJoin(KeysThatMayChange(), ", "))
      ->allow_extra_args(false);
  c->add_option("--threads", o->threads, "0: one a core")->check(WholeNumber(0, kMaxThreads));
  c->add_option("--seed", o->seed, "of weights and data order")->check(WholeNumber(0));
  AddDevice(c, &o->device);
  AddIsa(c);
  c->add_flag("--quiet", o->quiet, "no progress");
  c->footer(
      "Examples:\n  tessera train configs/quickstart.yaml train.lr=1e-3 --run runs/mine\n"
      "  tessera train configs/quickstart.yaml --run runs/mine --resume\n"
      "  tessera train configs/quickstart.yaml --run runs/mine --resume train.lr=5e-4 --override "
      "train.lr\n"
      "  tessera train quickstart '~model.layers' model.from=runs/mine 'model.adapt={}'\n"
      "Ctrl-C, SIGTERM, SIGHUP, SIGUSR1 and SIGXCPU save and end with code 130.\n" +
      OptimizerLines());
  c->callback([=] { *code = Train(*o); });
}

}  // namespace tessera
