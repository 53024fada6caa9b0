#include "train/trainer.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "absl/strings/str_format.h"
#include "kernels/adamw.h"
#include "kernels/dispatch.h"
#include "kernels/peak.h"

namespace tessera {
namespace {

int64_t MachineBytes() {
  return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
}

std::vector<float> Floats(const Tensor& t) {
  const float* p = t.data<float>();
  return std::vector<float>(p, p + t.elements());
}

}  // namespace

absl::StatusOr<std::unique_ptr<Trainer>> Trainer::Create(const RunConfig& config,
                                                         int64_t vocab_size, Device device) {
  const TrainConfig& t = config.train;
  const ModelCost cost = MeasureCost(config.model, vocab_size, t.batch, t.seq, t.precision);
  Arena arena(Arena::Backing::kMeta, 0);
  ParameterSet parameters(&arena, true);
  const Model model(config.model, vocab_size, &parameters);
  // Values and gradients, then AdamW's two moments.
  const int64_t parameter_bytes = 2 * arena.peak_bytes();
  const int64_t need = parameter_bytes + cost.activation_bytes, have = MachineBytes();
  if (need > have)
    return absl::ResourceExhaustedError(absl::StrFormat(
        "this run needs %.2f GiB (%.2f for parameters, gradients and moments, %.2f for a "
        "micro-batch of %d x %d tokens), the machine has %.2f; lower train.batch or train.seq, or "
        "set `recompute: true` on layers",
        need * 0x1p-30, parameter_bytes * 0x1p-30, cost.activation_bytes * 0x1p-30, t.batch, t.seq,
        have * 0x1p-30));
  return std::unique_ptr<Trainer>(new Trainer(config, vocab_size, device, cost, parameter_bytes));
}

Trainer::Trainer(const RunConfig& config, int64_t vocab_size, Device device, const ModelCost& cost,
                 int64_t parameter_bytes)
    : config_(config),
      device_(device),
      cost_(cost),
      parameter_arena_(Arena::Backing::kMemory, parameter_bytes),
      // The metrics of the step before live on beside the next step's activations.
      arena_(Arena::Backing::kMemory, cost.activation_bytes + (int64_t{1} << 20)),
      parameters_(&parameter_arena_, true),
      peak_flops_(MeasurePeakFlops(config.train.precision)) {
  model_ = std::make_unique<Model>(config_.model, vocab_size, &parameters_);
  parameters_.Initialise(config_.train.seed);
  for (const Parameter& p : parameters_.all())
    for (std::vector<Tensor>* moments : {&first_moments_, &second_moments_}) {
      moments->push_back(Tensor(&parameter_arena_, p.var.shape(), DType::kF32));
      std::fill_n(moments->back().data<float>(), moments->back().elements(), 0.0f);
    }
}

Context Trainer::NewContext() {
  Context ctx(device_, &arena_);
  ctx.compute = config_.train.precision;
  return ctx;
}

// One training pass over a micro-batch that has `share` of the step's targets. Returns its part of
// the loss.
double Trainer::Pass(const Batch& batch, double share, Metrics* metrics) {
  Context ctx = NewContext();
  ctx.counter = &counter_;
  ctx.metrics = metrics;
  Tensor tokens, targets;
  LoadBatch(ctx, batch, &tokens, &targets);
  const Tensor loss = TrainPass(ctx, *model_, tokens, targets, static_cast<float>(share));
  return share * static_cast<double>(loss.data<float>()[0]);
}

absl::StatusOr<StepReport> Trainer::Step(const Dataset& data) {
  const auto start = std::chrono::steady_clock::now();
  const TrainConfig& t = config_.train;
  StepReport report;
  counter_.Clear();
  parameters_.ForgetGradients();
  Metrics metrics;
  std::vector<Batch> batches;
  int64_t target_count = 0;
  for (int64_t micro = 0; micro < t.accumulate; ++micro) {
    batches.push_back(data.SampleBatch(
        {.seed = t.seed, .step = step_, .micro_batch = micro, .micro_batches = t.accumulate},
        t.batch, t.seq));
    target_count += batches.back().target_count;
  }
  for (const Batch& batch : batches) {
    metrics.clear();
    report.loss += Pass(batch,
                        static_cast<double>(batch.target_count) /
                            static_cast<double>(std::max<int64_t>(1, target_count)),
                        &metrics);
  }
  const ScopeCost counted = counter_.Total();
  report.flops = static_cast<double>(counted.forward.flops + counted.backward.flops);
  for (const auto& [key, value] : metrics)
    report.metrics[key.first + "." + key.second] = Floats(value);
  metrics.clear();

  std::vector<AdamWTensor> tensors;
  for (size_t i = 0; i < parameters_.all().size(); ++i) {
    const Parameter& p = parameters_.all()[i];
    // A parameter that nothing used this step (an expert's, say) has no gradient: zero.
    if (!p.var.grad()->started)
      std::fill_n(p.var.grad()->grad.data<float>(), p.var.shape().elements(), 0.0f);
    tensors.push_back(
        {.parameter = p.var.data<float>(),
         .gradient = p.var.grad()->grad.data<float>(),
         .first_moment = first_moments_[i].data<float>(),
         .second_moment = second_moments_[i].data<float>(),
         .size = p.var.shape().elements(),
         .weight_decay = p.decay == Decay::kYes ? static_cast<float>(t.weight_decay) : 0.0f});
  }
  report.lr = t.LearningRate().At(step_);
  const int64_t count = static_cast<int64_t>(tensors.size());
  std::vector<double> partial(static_cast<size_t>(OptimizerBlocks(tensors.data(), count)));
  Dispatch(device_,
           SquareSumArgs{.tensors = tensors.data(), .count = count, .partial = partial.data()});
  report.grad_norm = std::sqrt(std::accumulate(partial.begin(), partial.end(), 0.0));
  if (!std::isfinite(report.loss) || !std::isfinite(report.grad_norm))
    return absl::FailedPreconditionError(absl::StrFormat(
        "step %d: the loss is %g and the gradient's norm %g; nothing was updated. Lower train.lr "
        "(now %g), or raise train.warmup",
        step_ + 1, report.loss, report.grad_norm, report.lr));
  const double clip = t.clip > 0 && report.grad_norm > t.clip ? t.clip / report.grad_norm : 1.0;
  const double t_now = static_cast<double>(step_ + 1);
  Dispatch(device_,
           AdamWArgs{.tensors = tensors.data(),
                     .count = count,
                     .lr = static_cast<float>(report.lr),
                     .beta1 = static_cast<float>(t.beta1),
                     .beta2 = static_cast<float>(t.beta2),
                     .epsilon = static_cast<float>(t.epsilon),
                     .gradient_scale = static_cast<float>(clip),
                     .first_correction = static_cast<float>(1 / (1 - std::pow(t.beta1, t_now))),
                     .second_correction = static_cast<float>(1 / (1 - std::pow(t.beta2, t_now)))});
  report.step = ++step_;
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  report.mfu = report.flops / report.seconds / peak_flops_;
  return report;
}

Evaluation Trainer::Evaluate(const Dataset& data) {
  const TrainConfig& t = config_.train;
  Context ctx = NewContext();
  return tessera::Evaluate(ctx, *model_, data, t.batch, t.seq, t.eval_tokens);
}

std::vector<Trainer::Named> Trainer::Weights() const {
  std::vector<Named> all;
  for (const Parameter& p : parameters_.all()) all.push_back({p.name, p.var.value()});
  return all;
}

std::vector<Trainer::Named> Trainer::Moments() const {
  std::vector<Named> all;
  for (size_t i = 0; i < parameters_.all().size(); ++i) {
    all.push_back({"m." + parameters_.all()[i].name, first_moments_[i]});
    all.push_back({"v." + parameters_.all()[i].name, second_moments_[i]});
  }
  return all;
}

}  // namespace tessera
