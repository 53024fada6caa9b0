#include "train/trainer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_format.h"
#include "core/catch.h"
#include "core/limits.h"
#include "core/status.h"
#include "kernels/peak.h"
#include "kernels/pointwise/copy.h"

namespace tessera {
namespace {

constexpr int64_t kOutcomeFloats = sizeof(StepOutcome) / sizeof(float);
constexpr int64_t kStepFloats = sizeof(OptimizerStep) / sizeof(float);

// The names and sizes of the metrics of a training pass.
std::map<std::string, int64_t> MetricSizes(const RunConfig& config, int64_t vocab_size) {
  std::map<std::string, int64_t> sizes;
  MeasureMemory(config.train.precision, [&](Context& ctx) {
    ParameterSet parameters(ctx.arena(), true);
    const Model model(config.model, vocab_size, &parameters);
    Metrics metrics;
    ctx.metrics = &metrics;
    const Tensor ids = ctx.New({1, model.least_tokens()}, DType::kI32);
    ctx.position = ids;
    TrainPass(ctx, model, ids, ids, ctx.New({1}, DType::kF32));
    for (const auto& [key, value] : metrics) sizes[key.first + "." + key.second] = value.elements();
  });
  return sizes;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Trainer>> Trainer::Create(const RunConfig& config,
                                                         int64_t vocab_size, Device device) {
  return CatchErrors([&] { return Make(config, vocab_size, device); });
}

absl::StatusOr<std::unique_ptr<Trainer>> Trainer::Make(const RunConfig& config, int64_t vocab_size,
                                                       Device device) {
  const TrainConfig& t = config.train;
  TESSERA_RETURN_IF_ERROR(CheckDevice(device, config.model, vocab_size, t.precision));
  // Before the question what is free: a GPU's takes memory for its time, and its library for good.
  const double peak_flops = device == Device::kCuda ? Cuda().MeasurePeakFlops(t.precision)
                                                    : MeasurePeakFlops(t.precision);
  ModelCost cost = MeasureCost(config.model, vocab_size, t.batch, t.seq, t.precision);
  const bool carries = t.objective.order == ObjectiveConfig::Order::kStream;
  if (carries) {
    TESSERA_RETURN_IF_ERROR(CarriedStates::Check(config.model, cost));
    cost.activation_bytes =
        std::max(cost.activation_bytes,
                 CarriedStates::PassBytes(config.model, vocab_size, t.batch, t.seq, t.precision));
  }
  std::vector<MetricValues> metrics = MetricsOf(config, vocab_size);
  const int64_t parameter_bytes = BytesWith(config, vocab_size, OutcomeFloats(metrics));
  const int64_t carried_bytes =
      carries ? CheckedProduct({2, cost.state_bytes, t.batch, t.accumulate}) : 0;
  const int64_t scratch = device == Device::kCuda ? cost.cuda_scratch_bytes : 0;
  const int64_t need = parameter_bytes + carried_bytes + cost.activation_bytes + scratch;
  const std::string what = absl::StrFormat(
      "this run (%.2f GiB for parameters, gradients and moments, %.2f for a micro-batch of %d x %d "
      "tokens)",
      (parameter_bytes + carried_bytes) * 0x1p-30, (cost.activation_bytes + scratch) * 0x1p-30,
      t.batch, t.seq);
  const char* const fix = "lower train.batch or train.seq, or set `recompute: true` on layers";
  if (device == Device::kCpu) {
    TESSERA_RETURN_IF_ERROR(CheckMemory(need, what, fix));
  } else if (const int64_t have = Cuda().FreeBytes(); need > have) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("%s needs %.2f GiB, but the GPU has free %.2f; %s", what, need * 0x1p-30,
                        have * 0x1p-30, fix));
  }
  return std::unique_ptr<Trainer>(new Trainer(config, vocab_size, device, cost, std::move(metrics),
                                              parameter_bytes, peak_flops));
}

std::vector<Trainer::MetricValues> Trainer::MetricsOf(const RunConfig& config, int64_t vocab_size) {
  std::vector<MetricValues> metrics;
  int64_t floats = kOutcomeFloats;
  for (const auto& [name, count] : MetricSizes(config, vocab_size)) {
    metrics.push_back({name, floats, count});
    floats += count;
  }
  return metrics;
}

int64_t Trainer::OutcomeFloats(const std::vector<MetricValues>& metrics) {
  return metrics.empty() ? kOutcomeFloats : metrics.back().first + metrics.back().count;
}

// Of what stays from step to step, where a step's outcome has so many numbers.
int64_t Trainer::BytesWith(const RunConfig& config, int64_t vocab_size, int64_t outcome_floats) {
  Arena arena(Arena::Backing::kMeta, 0);
  ParameterSet parameters(&arena, true);
  const Model model(config.model, vocab_size, &parameters);
  const auto optimizer = MakeOptimizer({config.train.optimizer, parameters, &arena, Device::kMeta});
  const StepTensors tensors(&arena, Device::kMeta, *optimizer, config.train, outcome_floats);
  return arena.peak_bytes();
}

int64_t Trainer::StandingBytes(const RunConfig& config, int64_t vocab_size) {
  return BytesWith(config, vocab_size, OutcomeFloats(MetricsOf(config, vocab_size)));
}

Trainer::StepTensors::StepTensors(Arena* arena, Device device, const Optimizer& optimizer,
                                  const TrainConfig& t, int64_t outcome_floats) {
  const auto zeros = [&](const Shape& shape, DType dtype) {
    Tensor tensor(arena, shape, dtype);
    Zero(device, tensor.raw(), tensor.bytes());
    return tensor;
  };
  const int64_t blocks =
      OptimizerBlocks(optimizer.tensors().data(), static_cast<int64_t>(optimizer.tensors().size()));
  integers = zeros({t.accumulate * (3 * t.batch * t.seq + 1)}, DType::kI32);
  scalars = zeros({kStepFloats + t.accumulate}, DType::kF32);
  outcome = zeros({outcome_floats}, DType::kF32);
  losses = zeros({t.accumulate}, DType::kF32);
  partial = zeros({2 * blocks}, DType::kF32);  // doubles
}

Trainer::Trainer(const RunConfig& config, int64_t vocab_size, Device device, const ModelCost& cost,
                 std::vector<MetricValues> metrics, int64_t parameter_bytes, double peak_flops)
    : config_(config),
      device_(device),
      cost_(cost),
      metrics_(std::move(metrics)),
      parameter_arena_(DeviceMemory(device, parameter_bytes)),
      arena_(
          MemoryOf(device, {cost.activation_bytes + (int64_t{1} << 16), cost.cuda_scratch_bytes})),
      parameters_(&parameter_arena_, true),
      peak_flops_(peak_flops) {
  const TrainConfig& t = config_.train;
  model_ = std::make_unique<Model>(config_.model, vocab_size, &parameters_);
  parameters_.Initialise(t.seed, device_);
  optimizer_ = MakeOptimizer({t.optimizer, parameters_, &parameter_arena_, device_});
  tensors_ = std::make_unique<StepTensors>(&parameter_arena_, device_, *optimizer_, t,
                                           OutcomeFloats(metrics_));
  if (t.objective.order == ObjectiveConfig::Order::kStream)
    carried_ = std::make_unique<CarriedStates>(*model_, device_, t.accumulate, t.batch);
  for (int64_t i = 0; i < most_started(); ++i)
    slots_.push_back(std::unique_ptr<Slot>(new Slot{{device_, tensors_->integers.bytes()},
                                                    {device_, tensors_->scalars.bytes()},
                                                    {device_, tensors_->outcome.bytes()}}));
}

Context Trainer::NewContext() {
  Context ctx(device_, &arena_);
  ctx.compute = config_.train.precision;
  ctx.noise_seed = config_.train.seed;
  return ctx;
}

// The host's share of a step: which tokens, and the numbers that change from step to step.
void Trainer::FillInputs(const BatchSource& data, const Slot& slot) {
  const TrainConfig& t = config_.train;
  const size_t all = static_cast<size_t>(t.accumulate * t.batch * t.seq);
  auto* const inputs = slot.integers.as<int32_t>();
  auto* const share = slot.scalars.as<float>() + kStepFloats;
  std::vector<double> targets;
  double target_count = 0;
  bool anew = true;  // whether all rows are at the start of a document
  for (int64_t micro = 0; micro < t.accumulate; ++micro) {
    const Batch batch = data.TrainBatch(
        {.seed = t.seed, .step = step_, .micro_batch = micro, .micro_batches = t.accumulate},
        t.batch, t.seq);
    int32_t* to = inputs + micro * t.batch * t.seq;
    std::copy(batch.inputs.begin(), batch.inputs.end(), to);
    std::copy(batch.targets.begin(), batch.targets.end(), to + all);
    const std::vector<int32_t> position = Positions(batch);
    std::copy(position.begin(), position.end(), to + 2 * all);
    for (int64_t row = 0; row < t.batch; ++row)
      anew = anew && position[static_cast<size_t>(row * t.seq)] == 0;
    // Kernels read it as 32 bits; a number that comes again after 2^32 harms nobody.
    inputs[3 * all + static_cast<size_t>(micro)] =
        static_cast<int32_t>(static_cast<uint32_t>(step_ * t.accumulate + micro));
    targets.push_back(static_cast<double>(batch.target_count));
    target_count += targets.back();
  }
  for (size_t micro = 0; micro < targets.size(); ++micro)
    share[micro] = static_cast<float>(targets[micro] / std::max(1.0, target_count));
  if (carried_ != nullptr && anew) carried_->Clear();
  OptimizerStep step = {.lr = static_cast<float>(t.LearningRate().At(step_)),
                        .clip = static_cast<float>(t.clip)};
  optimizer_->SetCorrections(step_ + 1, &step);
  std::memcpy(slot.scalars.as<float>(), &step, sizeof step);
}

// One training pass over a micro-batch.
void Trainer::Pass(int64_t micro) {
  const TrainConfig& t = config_.train;
  const auto ids = [&](int64_t which) {
    return tensors_->integers
        .Slice((which * t.accumulate + micro) * t.batch * t.seq, t.batch * t.seq)
        .Reshape({t.batch, t.seq});
  };
  Context ctx = NewContext();
  Metrics metrics;
  ctx.counter = &counter_;
  ctx.metrics = &metrics;
  ctx.position = ids(2);
  ctx.noise_step =
      tensors_->integers.Slice(3 * t.accumulate * t.batch * t.seq + micro, 1).Reshape({1});
  const Tensor loss =
      TrainPass(ctx, *model_, ids(0), ids(1), tensors_->scalars.Slice(kStepFloats + micro, 1),
                carried_ == nullptr ? nullptr : carried_->At(micro));
  if (carried_ != nullptr) carried_->Keep(micro);
  const auto keep = [&](const Tensor& from, float* to) {
    Dispatch(device_, CopyArgs<float>{.x = from.data<float>(),
                                      .x_stride = from.elements(),
                                      .y = to,
                                      .y_stride = from.elements(),
                                      .mode = Grad::kOverwrite,
                                      .rows = 1,
                                      .C = from.elements()});
  };
  keep(loss, tensors_->losses.data<float>() + micro);
  if (micro + 1 < t.accumulate) return;
  // Their places were made by a pass over one token (MetricSizes).
  TESSERA_CHECK(metrics.size() == metrics_.size(),
                "a batch of %ld x %ld tokens reports %zu metrics and one of a token %zu", t.batch,
                t.seq, metrics.size(), metrics_.size());
  for (const auto& [key, value] : metrics) {
    const std::string name = key.first + "." + key.second;
    const auto kept = std::find_if(metrics_.begin(), metrics_.end(),
                                   [&](const MetricValues& m) { return m.name == name; });
    const int64_t places = kept == metrics_.end() ? 0 : kept->count;
    TESSERA_CHECK(value.elements() == places,
                  "the metric %s has %ld values in a batch of %ld x %ld tokens and %ld in one of a "
                  "token; a metric's size may not depend on the batch",
                  name.c_str(), value.elements(), t.batch, t.seq, places);
    keep(value, tensors_->outcome.data<float>() + kept->first);
  }
}

void Trainer::UpdateParameters() {
  const TrainConfig& t = config_.train;
  for (const Parameter& p : parameters_.all())
    // A parameter that nothing used this step (an expert's, say) has no gradient: zero.
    if (p.trainable && !p.var.grad()->started)
      Zero(device_, p.var.grad()->grad.raw(), p.var.grad()->grad.bytes());
  const OptimizerTensor* const tensors = optimizer_->tensors().data();
  const auto count = static_cast<int64_t>(optimizer_->tensors().size());
  auto* const partial = reinterpret_cast<double*>(tensors_->partial.raw());
  const auto* const step = reinterpret_cast<const OptimizerStep*>(tensors_->scalars.raw());
  auto* const outcome = reinterpret_cast<StepOutcome*>(tensors_->outcome.raw());
  Dispatch(device_, SquareSumArgs{.tensors = tensors, .count = count, .partial = partial});
  Dispatch(device_, StepOutcomeArgs{.partial = partial,
                                    .blocks = OptimizerBlocks(tensors, count),
                                    .loss = tensors_->losses.data<float>(),
                                    .share = tensors_->scalars.data<float>() + kStepFloats,
                                    .count = t.accumulate,
                                    .step = step,
                                    .outcome = outcome});
  optimizer_->Update(step, outcome);
}

// What the device does in a step; a function of what is in tokens, scalars and the parameters.
void Trainer::RunStep() {
  counter_.Clear();
  parameters_.ForgetGradients();
  for (int64_t micro = 0; micro < config_.train.accumulate; ++micro) Pass(micro);
  UpdateParameters();
}

// On a GPU a step is a graph from its second time on. States between steps change their shapes
// until they are full, and blocks may read how much they have seen, so such a step is none.
void Trainer::Start(const BatchSource& data) {
  TESSERA_CHECK(started() < most_started(), "%ld steps are started", started());
  const Clock::time_point at = Clock::now();
  const Slot& slot = *slots_[static_cast<size_t>(step_ % most_started())];
  FillInputs(data, slot);
  slot.integers.StartUpload(tensors_->integers.raw());
  slot.scalars.StartUpload(tensors_->scalars.raw());
  // The first step is not recorded: it is the one in which kernels take the memory that they keep.
  if (device_ == Device::kCuda && steps_run_ > 0 && carried_ == nullptr) {
    if (graph_ == nullptr)
      RunAsGraph(device_, &graph_, [&] { RunStep(); });
    else
      Cuda().Launch(*graph_);
  } else {
    RunStep();
  }
  slot.outcome.StartDownload(tensors_->outcome.raw());
  ++steps_run_;
  started_.push_back({.step = ++step_,
                      .lr = config_.train.LearningRate().At(step_ - 1),
                      .at = at,
                      .mark = Mark(device_)});
}

absl::StatusOr<StepReport> Trainer::Finish() {
  TESSERA_CHECK(!started_.empty(), "no step is started");
  const Started s = started_.front();
  started_.pop_front();
  Wait(device_, s.mark);
  const auto now = Clock::now();
  const Slot& slot = *slots_[static_cast<size_t>((s.step - 1) % most_started())];
  const float* const values = slot.outcome.as<float>();
  StepOutcome outcome;
  std::memcpy(&outcome, values, sizeof outcome);
  if (outcome.halted != 0) {
    if (!started_.empty()) Wait(device_, started_.back().mark);
    started_.clear();
    step_ = s.step - 1;
    if (carried_ != nullptr) carried_->Undo();
    return absl::FailedPreconditionError(absl::StrFormat(
        "step %d: the loss is %g and the gradient's norm %g; nothing was updated. Lower train.lr "
        "(now %g), or raise train.warmup",
        s.step, outcome.loss, outcome.grad_norm, s.lr));
  }
  const ScopeCost counted = counter_.Total();
  StepReport report = {
      .step = s.step,
      .loss = outcome.loss,
      .grad_norm = outcome.grad_norm,
      .lr = s.lr,
      .flops = static_cast<double>(counted.forward.flops + counted.backward.flops)};
  for (const MetricValues& m : metrics_)
    report.metrics[m.name].assign(values + m.first, values + m.first + m.count);
  report.seconds = std::chrono::duration<double>(now - std::max(s.at, last_finish_)).count();
  report.mfu = report.flops / report.seconds / peak_flops_;
  last_finish_ = now;
  return report;
}

absl::StatusOr<Evaluation> Trainer::Evaluate(const BatchSource& data,
                                             const EvaluationProgress& progress) {
  const TrainConfig& t = config_.train;
  Context ctx = NewContext();
  return tessera::Evaluate(ctx, *model_, data, t.batch, t.seq, t.eval_tokens, progress);
}

std::vector<Trainer::Named> Trainer::Weights() const {
  std::vector<Named> all;
  for (const Parameter& p : parameters_.all()) all.push_back({p.name, p.var.value()});
  return all;
}

}  // namespace tessera
