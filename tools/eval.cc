#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "arch/cost.h"
#include "core/limits.h"
#include "kernels/device/memory.h"
#include "tools/command.h"
#include "tools/tokenising.h"
#include "train/evaluate.h"
#include "train/run.h"

namespace tessera {
namespace {

struct Options {
  std::string run, data, format = "text", device = "auto";
  int64_t seq = 0, batch = 0, tokens = INT64_MAX, threads = 0;
  bool json = false;
};

PassMemory MemoryOfBatch(const LoadedRun& run, int64_t B, int64_t T, bool continues) {
  const DType compute = run.config.train.precision;
  PassMemory memory = MeasureMemory(compute, [&](Context& ctx) {
    const Tensor tokens = ctx.New({B, T}, DType::kI32), targets = ctx.New({B, T}, DType::kI32);
    ctx.position = ctx.New({B, T}, DType::kI32);
    const Var hidden = run.model->Hidden(ctx, tokens, nullptr);
    run.model->LossOf(ctx, hidden, targets);
    if (run.model->config().classes) run.model->Logits(ctx, hidden);
  });
  if (continues)
    memory.bytes = std::max(
        memory.bytes,
        CarriedStates::PassBytes(run.config.model, run.model->vocab_size(), B, T, compute));
  return memory;
}

int Eval(const Options& o) {
  const absl::StatusOr<std::string> threads = UseThreads(o.threads);
  if (!threads.ok()) return Fail(threads.status(), 1);
  if (!threads->empty()) std::fprintf(stderr, "%s\n", threads->c_str());
  std::string line;
  const absl::StatusOr<Device> device = OpenDevice(o.device, &line);
  if (!device.ok()) return Fail(device.status(), 1);
  if (!o.json) std::fprintf(stderr, "%s\n", line.c_str());
  const absl::StatusOr<LoadedRun> run = LoadRun(o.run, *device);
  if (!run.ok()) return Fail(run.status(), 1);
  const TrainConfig& t = run->config.train;
  const int64_t T = o.seq > 0 ? o.seq : t.seq, B = o.batch > 0 ? o.batch : t.batch;
  if (CheckedProduct({B, T}) > kMaxTokens)
    return Fail(absl::InvalidArgumentError(absl::StrFormat(
                    "%d windows of %d tokens at a time; at most %d tokens. Lower --batch or --seq",
                    B, T, kMaxTokens)),
                kMistake);
  DataConfig source{.path = o.data, .val_fraction = 1};
  source.format = o.format == "text"    ? DataConfig::Format::kText
                  : o.format == "jsonl" ? DataConfig::Format::kJsonl
                                        : DataConfig::Format::kTokens;
  source.tokens = t.data.Config().tokens;
  source.documents = t.data.Config().documents;
  const DataListener listener = {
      .message = [](const std::string& text) { std::fprintf(stderr, "%s\n", text.c_str()); },
      .progress =
          [](int64_t done, int64_t all) {
            ShowTokenising(done, all);
            return true;
          }};
  const absl::StatusOr<Dataset> data = Dataset::Open(source, run->tokenizer, T, listener);
  if (!data.ok()) return Fail(data.status(), CodeOf(data.status()));
  if (const absl::Status s = CheckSequences(run->model->config().layers, T,
                                            t.objective.is(ObjectiveConfig::Kind::kClassify)
                                                ? TrainingDataOf(run->config).packed
                                                : data->has_documents());
      !s.ok())
    return Fail(s, kMistake);
  if (t.objective.is(ObjectiveConfig::Kind::kClassify) && o.format != "jsonl")
    return Fail(absl::InvalidArgumentError(
                    "this run classifies documents; give --format jsonl, with labels"),
                kMistake);
  const auto batches = MakeBatches(run->config, o.data, *data, *run->tokenizer);
  if (!batches.ok()) return Fail(batches.status(), CodeOf(batches.status()));
  const PassMemory memory = MemoryOfBatch(*run, B, T, (*batches)->continues());
  if (*device == Device::kCpu)
    if (const absl::Status s =
            CheckMemory(memory.bytes, absl::StrFormat("a batch of %d x %d tokens", B, T),
                        "lower --batch or --seq");
        !s.ok())
      return Fail(s, 1);
  Arena arena(MemoryOf(*device, memory));
  Context ctx(*device, &arena);
  ctx.compute = t.precision;
  const bool terminal = isatty(STDERR_FILENO) != 0;
  const absl::StatusOr<Evaluation> evaluation =
      Evaluate(ctx, *run->model, **batches, B, T, o.tokens, [&](int64_t i, int64_t n) {
        if (terminal)
          std::fprintf(stderr, "\r\033[Kbatch %ld of %ld%s", static_cast<long>(i),
                       static_cast<long>(n), i == n ? "\r\033[K" : "");
        return true;
      });
  if (!evaluation.ok()) return Fail(evaluation.status(), CodeOf(evaluation.status()));
  const Evaluation& e = *evaluation;
  const auto [name, value, unit] = e.Headline();
  const char* const target = e.accuracy ? "document" : "token";
  if (o.json) {
    const nlohmann::json out = {
        {"loss", e.loss}, {name, value}, {"tokens", e.tokens}, {"seq", T}, {"step", run->step}};
    std::printf("%s\n", out.dump(2).c_str());
  } else {
    std::printf("loss %.6f nats a %s, %.6f %s, over %ld %ss in windows of %ld\n", e.loss, target,
                value, unit, static_cast<long>(e.tokens), target, static_cast<long>(T));
  }
  return 0;
}

}  // namespace

void AddEval(CLI::App* app, int* code) {
  auto o = std::make_shared<Options>();
  CLI::App* c = app->add_subcommand("eval", "loss and bits per byte of a trained run on a file");
  c->add_option("--run", o->run, "run directory")->required();
  c->add_option("--data", o->data, "a file; all of it is used")->required();
  c->add_option("--format", o->format, "of the file: text, jsonl or tokens")
      ->check(CLI::IsMember({"text", "jsonl", "tokens"}));
  c->add_option("--seq", o->seq,
                "window, each read from a fresh state; default the run's train.seq")
      ->check(WholeNumber(1, kMaxSeq));
  c->add_option("--batch", o->batch, "windows at a time; default the run's train.batch")
      ->check(WholeNumber(1, kMaxBatch));
  c->add_option("--tokens", o->tokens, "at most so many, from the start")->check(WholeNumber(1));
  AddDevice(c, &o->device);
  AddIsa(c);
  c->add_option("--threads", o->threads, "0: one a core")->check(WholeNumber(0, kMaxThreads));
  c->add_flag("--json", o->json, "for scripts");
  c->footer("Example:\n  tessera eval --run runs/quickstart --data README.md");
  c->callback([=] { *code = Eval(*o); });
}

}  // namespace tessera
