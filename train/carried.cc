#include "train/carried.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "arch/traits.h"
#include "core/sizes.h"
#include "kernels/pointwise/copy.h"

namespace tessera {
namespace {

std::string NameOf(size_t micro, const std::string& path) {
  return absl::StrCat("carried[", micro, "].", path);
}

void Copy(Device device, const Tensor& from, const Tensor& to) {
  ByDType(from.dtype(), [&](auto tag) {
    using T = decltype(tag);
    Dispatch(device, CopyArgs<T>{.x = from.data<T>(),
                                 .x_stride = from.stride(),
                                 .y = to.data<T>(),
                                 .y_stride = to.stride(),
                                 .mode = Grad::kOverwrite,
                                 .rows = from.rows(),
                                 .C = from.dim(-1)});
  });
}

Shape ShapeOf(const std::vector<int64_t>& s) {
  TESSERA_CHECK(s.size() >= 2 && s.size() <= 4, "a state of rank %zu", s.size());
  if (s.size() == 2) return {s[0], s[1]};
  if (s.size() == 3) return {s[0], s[1], s[2]};
  return {s[0], s[1], s[2], s[3]};
}

}  // namespace

CarriedStates::CarriedStates(const Model& model, Device device, int64_t micro_batches,
                             int64_t batch)
    : model_(model), device_(device), batch_(batch) {
  for (int64_t micro = 0; micro < micro_batches; ++micro)
    states_.push_back({.state = model_.NewState(batch_, 0)});
}

Tensor CarriedStates::New(const Shape& shape, DType dtype) const {
  const int64_t bytes = shape.elements() * SizeOf(dtype);
  const auto memory = std::make_shared<Arena>(DeviceMemory(device_, bytes + (int64_t{1} << 8)));
  return Tensor::Borrow(memory->At(memory->Allocate(bytes)), shape, shape[-1], dtype, memory);
}

ModelState* CarriedStates::At(int64_t micro) {
  One& one = states_[static_cast<size_t>(micro)];
  one.before = one.state.layers.Copy();
  return &one.state;
}

void CarriedStates::Undo() {
  for (One& one : states_) one.state.layers = std::move(one.before);
}

void CarriedStates::Keep(int64_t micro) {
  One& one = states_[static_cast<size_t>(micro)];
  std::map<std::string, Tensor>& kept = one.kept[one.turn ^= 1];
  one.state.layers.ForEach([&](const std::string& path, Var& value) {
    if (!value.defined()) return;
    const Tensor& left = value.value();
    auto at = kept.find(path);
    const bool fits = at != kept.end() && at->second.dtype() == left.dtype() &&
                      at->second.shape() == left.shape();
    if (!fits) at = kept.insert_or_assign(path, New(left.shape(), left.dtype())).first;
    if (!at->second.SharesMemory(left)) Copy(device_, left, at->second);
    value = Var(at->second);
  });
}

void CarriedStates::Clear() {
  for (One& one : states_) {
    one = {.state = model_.NewState(batch_, 0)};
  }
}

std::vector<Optimizer::State> CarriedStates::Values() {
  std::vector<Optimizer::State> values;
  for (size_t micro = 0; micro < states_.size(); ++micro)
    states_[micro].state.layers.ForEach([&](const std::string& path, Var& value) {
      if (value.defined()) values.push_back({NameOf(micro, path), value.value()});
    });
  return values;
}

State CarriedStates::Outline() const {
  State outline;
  MeasureMemory(DType::kF32, [&](Context& ctx) {
    ParameterSet parameters(ctx.arena(), false);
    const Model model(model_.config(), model_.vocab_size(), &parameters);
    ModelState state = model.NewState(1, 0);
    const Tensor ids = ctx.New({1, model.least_tokens()}, DType::kI32);
    ctx.position = ids;
    model.Hidden(ctx, ids, &state);
    outline = state.layers.Outline();
  });
  return outline;
}

absl::Status CarriedStates::Restore(const SafetensorsFile& file, int64_t tokens) {
  Clear();
  if (tokens == 0) return absl::OkStatus();
  for (size_t micro = 0; micro < states_.size(); ++micro) {
    One& one = states_[micro];
    one.state.layers = Outline();
    one.state.MoveTo(tokens);
    one.state.layers.ForEach([&](const std::string& path, Var& value) {
      const TensorView* const from = file.Find(NameOf(micro, path));
      if (from == nullptr) return;
      const Tensor kept = New(ShapeOf(from->shape), from->dtype);
      Upload(device_, kept.raw(), from->data, from->bytes);
      value = Var(kept);
      one.kept[one.turn][path] = kept;
    });
  }
  return absl::OkStatus();
}

int64_t CarriedStates::PassBytes(const ModelConfig& config, int64_t vocab_size, int64_t batch,
                                 int64_t seq, DType compute) {
  Arena parameter_arena(Arena::Backing::kMeta, 0), arena(Arena::Backing::kMeta, 0);
  ParameterSet parameters(&parameter_arena, true);
  const Model model(config, vocab_size, &parameters);
  const StateSize states = model.States(compute);
  int64_t longest = 0;  // tokens after which every cache is full
  for (const StateSize::Cache& c : states.caches)
    longest = std::max(longest, CheckedProduct({c.max_tokens, c.tokens_each}));
  Arena filled(Arena::Backing::kMeta, 0);
  ModelState state = model.NewState(batch, 0);
  const auto ids = [&](Context& ctx, int64_t T) {
    ctx.compute = compute;
    ctx.position = ctx.New({batch, T}, DType::kI32);
    return ctx.position;
  };
  if (longest > 0) {
    Context ctx(Device::kMeta, &filled);
    model.Hidden(ctx, ids(ctx, (longest + seq - 1) / seq * seq), &state);
  }
  // Each place that a batch may begin at in the period of layers on groups of tokens.
  const int64_t period = states.Period();
  for (int64_t pass = 0; pass <= period / std::gcd(period, seq); ++pass) {
    Context ctx(Device::kMeta, &arena);
    const Tensor tokens = ids(ctx, seq);
    TrainPass(ctx, model, tokens, tokens, ctx.New({1}, DType::kF32), &state);
  }
  return arena.peak_bytes();
}

absl::Status CarriedStates::Check(const ModelConfig& config, const ModelCost& cost) {
  const Traits traits = TraitsOf(config.layers);
  if (traits.causal != Causal::kAlways || !traits.decodes)
    return absl::InvalidArgumentError(
        absl::StrCat("train.order: stream carries the model's state from step to step, and this "
                     "model cannot go on from one in training, since ",
                     traits.why, "; use `order: shuffled`"));
  std::vector<std::string> growing;
  for (const LayerCost& layer : cost.layers)
    if (layer.kv_bytes_per_token > 0) growing.push_back(layer.path);
  if (growing.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "train.order: stream carries the model's state from step to step, and that of ",
      absl::StrJoin(growing, ", "),
      " would grow without end; give attention a `window`, or train with `order: shuffled`"));
}

}  // namespace tessera
