#include "arch/cost.h"

#include <algorithm>

#include "core/sizes.h"

namespace tessera {
namespace {

// The layer that a counted path belongs to: layers[4].parallel.0.gla is layers[4].parallel's.
LayerCost* LayerOf(std::vector<LayerCost>& layers, const std::string& path) {
  LayerCost* found = &layers.front();  // "model": what stands outside every layer
  for (LayerCost& l : layers) {
    const bool inside =
        path.compare(0, l.path.size(), l.path) == 0 &&
        (path.size() == l.path.size() || path[l.path.size()] == '.' || path[l.path.size()] == '[');
    if (inside) found = &l;
  }
  return found;
}

// Throws SizeError where a training pass has more FLOPs or bytes than 64 bits count. An op's cost
// is at most that of one token times the tokens and, where tokens meet in pairs, times those that
// one meets; its backward pass costs at most four times as much.
void CheckCountable(const Model& model, int64_t batch, int64_t seq, DType compute) {
  Arena arena(Arena::Backing::kMeta, 0);
  CostCounter counter;
  Context ctx(Device::kMeta, &arena);
  ctx.compute = compute;
  ctx.counter = &counter;
  const Tensor ids = ctx.New({1, 1}, DType::kI32);
  ctx.position = ids;
  model.Loss(ctx, ids, ids);
  double most = 0;
  for (const auto& [op, cost] : counter.Total().forward_by_op) {
    constexpr double kChunk = 64;  // of the scans
    const bool attention = op.rfind("attention", 0) == 0, scan = op.find("scan") != op.npos;
    const double met = attention ? static_cast<double>(seq) : scan ? kChunk : 1;
    most += met * static_cast<double>(std::max(cost.flops, cost.bytes));
  }
  const double tokens = static_cast<double>(batch) * static_cast<double>(seq);
  if (5 * most * tokens > 0x1p62)
    throw SizeError("a pass of this model over " + std::to_string(batch) + " x " +
                    std::to_string(seq) +
                    " tokens does more than can be counted (some 2^62 FLOPs); use a smaller batch, "
                    "sequence or model");
}

}  // namespace

Tensor TrainPass(Context& ctx, const Model& model, const Tensor& tokens, const Tensor& targets,
                 const Tensor& scale) {
  ctx.training = true;
  ctx.loss_scale = scale;
  ctx.SetRecording(true);
  const Var loss = model.Loss(ctx, tokens, targets);
  ctx.Backward(loss, scale);
  ctx.SetRecording(false);
  return loss.value();
}

ModelCost MeasureCost(const ModelConfig& config, int64_t vocab_size, int64_t batch, int64_t seq,
                      DType compute) {
  Arena parameter_arena(Arena::Backing::kMeta, 0), arena(Arena::Backing::kMeta, 0);
  ParameterSet parameters(&parameter_arena, true);
  const Model model(config, vocab_size, &parameters);

  CheckCountable(model, batch, seq, compute);

  ModelCost cost{.batch = batch, .seq = seq};
  cost.layers.push_back({.path = "model"});
  for (const Model::Layer& layer : model.layers()) {
    LayerCost l{.path = layer.config->path};
    for (const auto& block : layer.blocks) {
      const StateSize s = block->States(compute);
      l.state.fixed_bytes = SaturatingSum(l.state.fixed_bytes, s.fixed_bytes);
      if (s.max_tokens < 0) {
        l.state.bytes_per_token += s.bytes_per_token;
      } else {
        l.state.fixed_bytes = SaturatingSum(l.state.fixed_bytes, s.bytes_per_token * s.max_tokens);
      }
      l.active_parameters -= block->IdleParameters();
    }
    cost.state_bytes = SaturatingSum(cost.state_bytes, l.state.fixed_bytes);
    cost.kv_bytes_per_token += l.state.bytes_per_token;
    cost.layers.push_back(l);
  }
  cost.layers.push_back({.path = "head"});

  for (const Parameter& p : parameters.all()) {
    if (p.role == Role::kBuffer) continue;
    LayerCost* l = p.name == "model.head" ? &cost.layers.back() : LayerOf(cost.layers, p.name);
    l->parameters += p.var.shape().elements();
    l->active_parameters += p.var.shape().elements();
  }
  for (LayerCost& l : cost.layers) {
    // A layer that borrows its weights has none of its own to leave idle.
    if (l.parameters == 0) l.active_parameters = 0;
    cost.parameters += l.parameters;
    cost.active_parameters += l.active_parameters;
  }

  const double tokens = static_cast<double>(batch * seq);
  for (const bool training : {false, true}) {
    CostCounter counter;
    Context ctx(Device::kMeta, &arena);
    ctx.compute = compute;
    ctx.counter = &counter;
    const Tensor in = ctx.New({batch, seq}, DType::kI32),
                 targets = ctx.New({batch, seq}, DType::kI32);
    ctx.position = ctx.New({batch, seq}, DType::kI32);
    if (training) {
      arena.ResetPeak();
      TrainPass(ctx, model, in, targets, ctx.New({1}, DType::kF32));
      cost.activation_bytes = arena.peak_bytes();
      cost.cuda_scratch_bytes = ctx.cuda_scratch_bytes();
    } else {
      model.Loss(ctx, in, targets);
    }
    for (const auto& [path, s] : counter.scopes()) {
      LayerCost* l = path == "head" ? &cost.layers.back() : LayerOf(cost.layers, path);
      const double flops = static_cast<double>(s.forward.flops + s.backward.flops) / tokens;
      const double bytes = static_cast<double>(s.forward.bytes + s.backward.bytes) / tokens;
      if (training) {
        if (path == l->path) l->activation_bytes = s.kept_bytes;  // of its parts, too
        l->training_flops += flops;
        cost.training_flops += flops;
        cost.training_bytes += bytes;
        cost.recompute_flops += static_cast<double>(s.recompute.flops) / tokens;
      } else {
        l->forward_flops += flops;
        cost.forward_flops += flops;
        cost.forward_bytes += bytes;
      }
    }
  }
  return cost;
}

absl::Status CheckDevice(Device device, const ModelConfig& config, int64_t vocab_size,
                         DType compute) {
  if (device != Device::kCuda) return absl::OkStatus();
  std::map<std::string, std::string> limits;
  MeasureMemory(compute, [&](Context& ctx) {
    ParameterSet parameters(ctx.arena(), false);
    const Model model(config, vocab_size, &parameters);
    ctx.cuda_limits = &limits;
    const Tensor ids = ctx.New({1, 1}, DType::kI32);
    ctx.position = ids;
    model.Loss(ctx, ids, ids);
  });
  if (limits.empty()) return absl::OkStatus();
  std::string lines;
  for (const auto& [path, limit] : limits) lines += path + ": " + limit + "\n";
  return absl::InvalidArgumentError(lines + "change these sizes, or use --device cpu");
}

PassMemory MeasureMemory(DType compute, const std::function<void(Context&)>& pass) {
  Arena arena(Arena::Backing::kMeta, 0);
  Context ctx(Device::kMeta, &arena);
  ctx.compute = compute;
  pass(ctx);
  return {arena.peak_bytes(), ctx.cuda_scratch_bytes()};
}

}  // namespace tessera
