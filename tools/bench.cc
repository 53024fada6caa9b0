#include <algorithm>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "arch/cost.h"
#include "arch/registry.h"
#include "arch/traits.h"
#include "core/limits.h"
#include "core/status.h"
#include "data/tokenizer.h"
#include "io/files.h"
#include "kernels/device/memory.h"
#include "tools/command.h"
#include "train/chart.h"
#include "train/run_config.h"

// Times blocks, or whole configs, against each other: the same width, tokens and machine, in turns,
// so that a slow moment hits all alike.

namespace tessera {
namespace {

struct Options {
  std::vector<std::string> subjects;
  std::vector<int64_t> seq = {512, 2048};
  std::vector<std::string> modes = {"train", "forward", "prefill", "decode"};
  int64_t d_model = 256, layers = 2, tokens = 4096, rounds = 5, threads = 0;
  std::string precision = "fp32", device = "auto", json, svg;
};

// One model at one length in one mode, ready to be timed.
class Subject {
 public:
  Subject(const std::string& name, const ModelConfig& config, int64_t vocab,
          const std::string& mode, int64_t seq, Device device, const Options& o)
      : name(name),
        mode(mode),
        seq(seq),
        device_(device),
        config_(config),
        vocab_(vocab),
        decoded_(kDecoded * (o.rounds + 1)) {
    compute_ = o.precision == "bf16" ? DType::kBF16 : DType::kF32;
    batch_ = mode == "train" || mode == "forward" ? std::max<int64_t>(1, o.tokens / seq) : 1;
    Arena meta(Arena::Backing::kMeta, 0);
    ParameterSet shapes(&meta, true);
    const Model model(config_, vocab_, &shapes);
    parameter_arena_ = std::make_unique<Arena>(DeviceMemory(device_, meta.peak_bytes()));
    parameters_ = std::make_unique<ParameterSet>(parameter_arena_.get(), true);
    model_ = std::make_unique<Model>(config_, vocab_, parameters_.get());
    const PassMemory pass = MemoryOfPass();
    const int64_t inputs_bytes = 16 * batch_ * seq + 1024;
    if (device_ == Device::kCpu)
      if (const absl::Status s =
              CheckMemory(meta.peak_bytes() + pass.bytes + 2 * inputs_bytes,
                          name + ", " + mode + " over " + std::to_string(batch_) + " x " +
                              std::to_string(seq) + " tokens",
                          "lower --seq, --tokens or --d-model");
          !s.ok())
        throw OutOfMemory(std::string(s.message()));
    parameters_->Initialise(1, device_);
    arena_ = std::make_unique<Arena>(MemoryOf(device_, pass));
    inputs_arena_ = std::make_unique<Arena>(DeviceMemory(device_, inputs_bytes));
    inputs_ = MakeInputs(seq);
    if (mode == "decode") {
      state_ = std::make_unique<ModelState>(NewState());
      Run(inputs_);
      inputs_ = MakeInputs(1);
    }
  }

  std::string name, mode;
  int64_t seq;
  std::vector<double> seconds;
  int64_t tokens() const { return mode == "decode" ? kDecoded : batch_ * seq; }
  double flops = 0;  // of one timed run
  int64_t state_bytes = 0;

  void Time() {
    const auto start = std::chrono::steady_clock::now();
    flops = 0;
    for (int64_t i = 0; i < (mode == "decode" ? kDecoded : 1); ++i) Run(inputs_);
    Wait(device_, Mark(device_));
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  double Median() const {
    std::vector<double> s = seconds;
    std::sort(s.begin(), s.end());
    return s[s.size() / 2];
  }

 private:
  static constexpr int kDecoded = 32;  // tokens a timed run

  // Measured by the same passes on the meta device.
  PassMemory MemoryOfPass() {
    if (mode == "train") {
      const ModelCost cost = MeasureCost(config_, vocab_, batch_, seq, compute_);
      return {cost.activation_bytes, cost.cuda_scratch_bytes};
    }
    return MeasureMemory(compute_, [&](Context& ctx) {
      ModelState state = NewState();
      Pass(ctx, {}, seq, &state);
      for (int64_t i = 0; mode == "decode" && i < decoded_; ++i) Pass(ctx, {}, 1, &state);
    });
  }
  ModelState NewState() const {
    return model_->NewState(batch_, mode == "decode" ? seq + decoded_ : seq);
  }

  struct Inputs {
    Tensor tokens, targets, position, scale, step;
  };
  Inputs MakeInputs(int64_t T) {
    const Shape shape = {batch_, T};
    std::vector<int32_t> ids, next, position;
    for (int64_t i = 0; i < batch_ * T; ++i) {
      ids.push_back(static_cast<int32_t>(i * 7919 % vocab_));
      next.push_back(static_cast<int32_t>(i * 104729 % vocab_));
      position.push_back(static_cast<int32_t>(i % T));
    }
    const auto make = [&](const Shape& shape, DType dtype, const void* from) {
      Tensor t(inputs_arena_.get(), shape, dtype);
      Upload(device_, t.raw(), from, t.bytes());
      return t;
    };
    const float one = 1;
    const int32_t zero = 0;
    inputs_ = {};
    return {make(shape, DType::kI32, ids.data()), make(shape, DType::kI32, next.data()),
            make(shape, DType::kI32, position.data()), make({1}, DType::kF32, &one),
            make({1}, DType::kI32, &zero)};
  }

  // Reads T tokens. On the meta device only shapes matter, and the inputs are made here.
  void Pass(Context& ctx, Inputs in, int64_t T, ModelState* state) {
    if (ctx.device() == Device::kMeta)
      in.tokens = in.targets = in.position = ctx.New({batch_, T}, DType::kI32);
    ctx.position = in.position;
    ctx.noise_step = in.step;
    if (mode == "train") {
      parameters_->ForgetGradients();
      TrainPass(ctx, *model_, in.tokens, in.targets, in.scale);
    } else if (mode == "forward") {
      model_->Loss(ctx, in.tokens, in.targets);
    } else {
      model_->LastLogits(ctx, model_->Hidden(ctx, in.tokens, state));
      state_bytes = state->bytes();
    }
  }

  // Once as it is; then, on a GPU, as a graph, which is made anew for each token that is decoded,
  // since states move and grow; and where the host reads values there is none.
  void Run(const Inputs& in) {
    if (mode == "decode" && state_->tokens() > 0) {
      const std::vector<int32_t> next = state_->NextPositions(1);
      Upload(device_, in.position.raw(), next.data(), in.position.bytes());
    }
    const auto pass = [&] {
      CostCounter counter;
      Context ctx(device_, arena_.get());
      ctx.compute = compute_;
      ctx.counter = &counter;
      if (mode == "prefill") state_ = std::make_unique<ModelState>(NewState());
      Pass(ctx, in, in.tokens.dim(1), state_.get());
      const ScopeCost total = counter.Total();
      pass_flops_ = static_cast<double>(total.forward.flops + total.backward.flops);
    };
    const bool reads_values = mode != "train" && TraitsOf(config_.layers).reads_values;
    if (runs_++ < 2 || reads_values)
      pass();
    else if (graph_ != nullptr && mode != "decode")
      Cuda().Launch(*graph_);
    else
      RunAsGraph(device_, &graph_, pass);
    flops += pass_flops_;
  }

  Device device_;
  ModelConfig config_;
  int64_t vocab_, batch_ = 1;
  int64_t decoded_;  // tokens in all, the first run, which is not timed, among them
  DType compute_;
  std::unique_ptr<Arena> parameter_arena_, arena_, inputs_arena_;
  Inputs inputs_;
  std::unique_ptr<ParameterSet> parameters_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<ModelState> state_;
  std::unique_ptr<CudaDevice::Graph> graph_;
  int64_t runs_ = 0;
  double pass_flops_ = 0;
};

// A block's name stands for `layers` of it at `d_model`; anything else is a config file.
absl::StatusOr<std::pair<ModelConfig, int64_t>> ModelOf(const std::string& name, const Options& o) {
  if (FindBlock(name) == nullptr) {
    TESSERA_ASSIGN_OR_RETURN(const RunConfig config, ReadRunConfig(name, {}));
    TESSERA_ASSIGN_OR_RETURN(const auto tokenizer, LoadTokenizer(config.model.vocab));
    return std::make_pair(config.model, tokenizer->vocab_size());
  }
  const std::string yaml = "{d_model: " + std::to_string(o.d_model) +
                           ", layers: [{repeat: " + std::to_string(o.layers) + ", layers: [" +
                           name + "]}]}";
  TESSERA_ASSIGN_OR_RETURN(const ConfigNode node, ParseYaml(yaml, "bench"));
  ErrorList errors;
  ModelConfig config = ReadModelConfig(node, {}, &errors);
  TESSERA_RETURN_IF_ERROR(errors.ToStatus());
  return std::make_pair(std::move(config), int64_t{256});
}

// Whether the model can do what the mode asks of it.
absl::Status CheckMode(const ModelConfig& config, const std::string& mode, int64_t seq) {
  ErrorList errors;
  if (mode == "prefill" || mode == "decode") {
    CheckGeneration(config.layers, &errors);
  } else {
    errors.Add(CheckSequences(config.layers, seq, false));
  }
  return errors.ToStatus();
}

// A panel a mode: tokens a second over the sequence length, a curve a subject.
std::string Drawing(const nlohmann::json& rows, const Options& o) {
  std::vector<std::string> panels;
  for (const std::string& mode : o.modes) {
    std::vector<Curve> curves;
    for (const std::string& name : o.subjects) {
      Curve curve{name, {}};
      for (const nlohmann::json& row : rows)
        if (row["mode"] == mode && row["name"] == name)
          curve.points.emplace_back(row["seq"].get<double>(),
                                    row["tokens_per_second"].get<double>());
      std::sort(curve.points.begin(), curve.points.end());
      curves.push_back(std::move(curve));
    }
    panels.push_back(LineChart({.title = mode + ": tokens a second",
                                .x_label = "sequence length",
                                .log_x = true,
                                .log_y = true,
                                .points = true},
                               curves));
  }
  return StackSvg(panels);
}

int Bench(const Options& o) {
  const absl::StatusOr<std::string> threads = UseThreads(o.threads);
  if (!threads.ok()) return Fail(threads.status(), kFailed);
  if (!threads->empty()) std::fprintf(stderr, "%s\n", threads->c_str());
  std::string line;
  const absl::StatusOr<Device> device = OpenDevice(o.device, &line);
  if (!device.ok()) return Fail(device.status(), 1);
  // A file that cannot be written is told before the work, not after it.
  for (const std::string& path : {o.json, o.svg})
    if (!path.empty())
      if (const absl::Status s = CheckWritable(path); !s.ok()) return Fail(s, kFailed);
  std::fprintf(stderr, "%s\n", line.c_str());
  nlohmann::json rows = nlohmann::json::array();
  std::printf("%-24s %-8s %6s %12s %14s %10s %12s\n", "what", "mode", "seq", "ms", "tokens/s",
              "GFLOP/s", "state B");
  for (const std::string& mode : o.modes)
    for (const int64_t seq : o.seq) {
      std::vector<std::unique_ptr<Subject>> subjects;
      for (const std::string& name : o.subjects) {
        const auto model = ModelOf(name, o);
        if (!model.ok()) return Fail(model.status(), 2);
        const DType compute = o.precision == "bf16" ? DType::kBF16 : DType::kF32;
        if (const absl::Status s = CheckDevice(*device, model->first, model->second, compute);
            !s.ok())
          return Fail(s, 2);
        if (const absl::Status s = CheckMode(model->first, mode, seq); !s.ok()) return Fail(s, 2);
        subjects.push_back(
            std::make_unique<Subject>(name, model->first, model->second, mode, seq, *device, o));
        subjects.back()->Time();
        subjects.back()->seconds.clear();
      }
      for (int64_t round = 0; round < o.rounds; ++round)
        for (const auto& s : subjects) s->Time();
      for (const auto& s : subjects) {
        const double median = s->Median(), rate = static_cast<double>(s->tokens()) / median;
        std::printf("%-24s %-8s %6ld %12.3f %14.0f %10.1f %12ld\n", s->name.c_str(), mode.c_str(),
                    static_cast<long>(seq), median * 1e3, rate, s->flops / median * 1e-9,
                    static_cast<long>(s->state_bytes));
        // Rows that nobody can read any more are timed for a file alone.
        if (OutputLost() && o.json.empty() && o.svg.empty()) return kDone;
        rows.push_back({{"name", s->name},
                        {"device", Name(*device)},
                        {"mode", mode},
                        {"seq", seq},
                        {"tokens", s->tokens()},
                        {"median_seconds", median},
                        {"seconds", s->seconds},
                        {"tokens_per_second", rate},
                        {"flops_per_second", s->flops / median},
                        {"state_bytes", s->state_bytes}});
      }
    }
  if (!o.json.empty())
    if (const absl::Status s = AtomicWrite(o.json, rows.dump(2) + "\n"); !s.ok()) return Fail(s, 1);
  if (!o.svg.empty())
    if (const absl::Status s = AtomicWrite(o.svg, Drawing(rows, o)); !s.ok()) return Fail(s, 1);
  return 0;
}

}  // namespace

void AddBench(CLI::App* app, int* code) {
  auto o = std::make_shared<Options>();
  CLI::App* c = app->add_subcommand("bench", "time blocks or configs against each other");
  c->add_option("what", o->subjects, "blocks by name, or config files")->required();
  c->add_option("--seq", o->seq, "sequence lengths")
      ->delimiter(',')
      ->check(WholeNumber(1, kMaxSeq));
  c->add_option("--modes", o->modes, "of train, forward, prefill, decode")
      ->delimiter(',')
      ->check(CLI::IsMember({"train", "forward", "prefill", "decode"}));
  c->add_option("--d-model", o->d_model, "width of blocks")->check(WholeNumber(1, kMaxModelWidth));
  c->add_option("--layers", o->layers, "layers of a block")->check(WholeNumber(1, 1000));
  c->add_option("--tokens", o->tokens, "of a train or forward pass")
      ->check(WholeNumber(1, kMaxTokens));
  c->add_option("--rounds", o->rounds, "timed runs; the median counts")
      ->check(WholeNumber(1, 10000));
  c->add_option("--threads", o->threads, "0: one a core")->check(WholeNumber(0, kMaxThreads));
  c->add_option("--precision", o->precision, "fp32 or bf16")
      ->check(CLI::IsMember({"fp32", "bf16"}));
  AddDevice(c, &o->device);
  AddIsa(c);
  c->add_option("--json", o->json, "also write the rows to this file");
  c->add_option("--svg", o->svg, "also draw them into this file");
  c->footer(
      "Examples:\n  tessera bench attention gla mamba2 --seq 512,2048 --modes train,decode\n"
      "  tessera bench attention gla --seq 512,1024,2048,4096,8192 --modes prefill --svg "
      "lengths.svg");
  c->callback([=] { *code = Bench(*o); });
}

}  // namespace tessera
