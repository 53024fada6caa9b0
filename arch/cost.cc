#include "arch/cost.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "core/sizes.h"

namespace tessera {
namespace {

// Finds the row of a counted path or a parameter. What a block adds to the paths inside of it, such
// as the number of a branch or of a run, is skipped: layers[1].recurrent.run0.layers[2].mlp belongs
// to layers[1].recurrent.layers[2].mlp.
class Rows {
 public:
  explicit Rows(std::vector<LayerCost>* rows) : outside_(&rows->front()) {
    for (LayerCost& row : *rows) {
      std::string path;
      for (const std::string& part : PartsOf(row.path)) prefixes_.emplace(path += part, nullptr);
      prefixes_[path] = &row;
    }
  }
  // *whole: the path is the layer's own.
  LayerCost* Find(const std::string& path, bool* whole = nullptr) const {
    LayerCost* row = outside_;
    std::string so_far;
    for (const std::string& part : PartsOf(path)) {
      const auto found = prefixes_.find(so_far + part);
      if (whole != nullptr) *whole = found != prefixes_.end() && found->second != nullptr;
      if (found == prefixes_.end()) continue;
      so_far += part;
      if (found->second != nullptr) row = found->second;
    }
    return row;
  }

 private:
  // "layers", "[4]", ".gla".
  static std::vector<std::string> PartsOf(const std::string& path) {
    std::vector<std::string> parts;
    for (size_t begin = 0; begin < path.size();) {
      const size_t end = std::min(path.find_first_of(".[", begin + 1), path.size());
      parts.push_back(path.substr(begin, end - begin));
      begin = end;
    }
    return parts;
  }

  LayerCost* outside_;  // what stands outside of every layer
  std::map<std::string, LayerCost*> prefixes_;
};

// What a state inside of a block is in the model.
using StatesInModel = std::function<StateSize(const StateSize&)>;

// A row for each layer of a stack, each followed by those for the layers inside of it.
void AddRows(const Stack& stack, const StatesInModel& in_model, const std::string& path,
             DType compute, std::vector<LayerCost>* rows) {
  for (const Stack::Layer& layer : stack.layers()) {
    LayerCost row{.path = path.empty() ? layer.config.place : path + "." + layer.config.place};
    StateSize states;
    for (const auto& block : layer.blocks) states += in_model(block->States(compute));
    row.state_bytes = states.BoundedBytes();
    row.kv_bytes_per_token = states.BytesPerToken();
    rows->push_back(row);
    for (size_t b = 0; b < layer.blocks.size(); ++b) {
      std::string inside = row.path;
      if (layer.blocks.size() > 1)
        inside += absl::StrCat("[", b, "].", layer.config.branches[b].type->name);
      for (const HeldStack& inner : layer.blocks[b]->Stacks())
        AddRows(
            *inner.stack, [&](const StateSize& s) { return in_model(inner.StatesOf(s)); }, inside,
            compute, rows);
    }
  }
}

// Throws SizeError where a training pass has more FLOPs or bytes than 64 bits count. An op's cost
// is at most that of the shortest sequence times the tokens and, where tokens meet in pairs, times
// those that one meets; its backward pass costs at most four times as much.
void CheckCountable(const Model& model, int64_t batch, int64_t seq, DType compute) {
  Arena arena(Arena::Backing::kMeta, 0);
  CostCounter counter;
  Context ctx(Device::kMeta, &arena);
  ctx.compute = compute;
  ctx.counter = &counter;
  const Tensor ids = ctx.New({1, model.least_tokens()}, DType::kI32);
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
                 const Tensor& scale, ModelState* state) {
  ctx.training = true;
  ctx.loss_scale = scale;
  ctx.SetRecording(true);
  const Var loss = model.Loss(ctx, tokens, targets, state);
  ctx.Backward(loss, scale);
  ctx.SetRecording(false);
  if (state != nullptr) state->layers.Detach();
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
  AddRows(
      model.stack(), [](const StateSize& s) { return s; }, "", compute, &cost.layers);
  cost.layers.push_back({.path = "head"});
  for (const LayerCost& l : cost.layers) {
    cost.state_bytes = SaturatingSum(cost.state_bytes, l.state_bytes);
    cost.kv_bytes_per_token += l.kv_bytes_per_token;
  }
  const Rows rows(&cost.layers);

  for (const Parameter& p : parameters.all()) {
    if (p.role == Role::kBuffer) continue;
    LayerCost* l = p.name.starts_with("model.head") ? &cost.layers.back() : rows.Find(p.name);
    const int64_t elements = p.var.shape().elements();
    l->parameters += elements;
    l->active_parameters += elements - p.idle;
    cost.parameters += elements;
    cost.active_parameters += elements - p.idle;
    if (p.trainable) cost.trained_parameters += elements;
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
      bool whole = false;
      LayerCost* l = rows.Find(path, &whole);
      const double flops = static_cast<double>(s.forward.flops + s.backward.flops) / tokens;
      const double bytes = static_cast<double>(s.forward.bytes + s.backward.bytes) / tokens;
      if (training) {
        if (whole) l->activation_bytes += s.kept_bytes;  // of its parts, too
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
    const Tensor ids = ctx.New({1, model.least_tokens()}, DType::kI32);
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
