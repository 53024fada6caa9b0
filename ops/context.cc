#include "ops/context.h"

#include <algorithm>

#include "kernels/copy.h"
#include "kernels/device/memory.h"

namespace tessera {
namespace {

void CopyInto(Context& ctx, const Tensor& from, const Tensor& to, Grad mode) {
  ByDType(from.dtype(), [&](auto tag) {
    using T = decltype(tag);
    ctx.Run(CopyArgs<T>{.x = from.data<T>(),
                        .x_stride = from.stride(),
                        .y = to.data<T>(),
                        .y_stride = to.stride(),
                        .mode = mode,
                        .rows = from.rows(),
                        .C = from.dim(-1)});
  });
}

bool Wanted(const Var& v) { return v.grad() != nullptr; }

}  // namespace

Var Leaf(Tensor value) {
  auto node = std::make_shared<GradNode>();
  node->shape = value.shape();
  node->dtype = value.dtype();
  return Var(std::move(value), std::move(node));
}

ScopeCost CostCounter::Total() const {
  ScopeCost total;
  for (const auto& [path, s] : scopes_) {
    total.forward += s.forward;
    total.backward += s.backward;
    total.recompute += s.recompute;
    for (const auto& [op, cost] : s.forward_by_op) total.forward_by_op[op] += cost;
  }
  return total;
}

void CostCounter::Clear() {
  for (auto& [path, s] : scopes_) s = ScopeCost{};
}

Tensor Context::Zeros(const Shape& shape, DType dtype) {
  Tensor t = New(shape, dtype);
  Zero(device_, t.raw(), t.bytes());
  return t;
}

void Context::Count(const char* op, const Cost& cost) {
  if (counter == nullptr) return;
  if (cost_ == nullptr) cost_ = counter->At(path_);
  switch (phase_) {
    case Phase::kForward:
      cost_->forward += cost;
      cost_->forward_by_op[op] += cost;
      break;
    case Phase::kBackward:
      cost_->backward += cost;
      break;
    case Phase::kRecompute:
      cost_->recompute += cost;
      break;
  }
}

void Context::Record(std::function<void(Context&)> run) {
  tape_.push_back({std::move(run), path_, cost_});
}

Var Context::Result(Tensor value, std::initializer_list<Var> inputs, Vjp vjp) {
  if (!recording_ || std::none_of(inputs.begin(), inputs.end(), Wanted))
    return Var(std::move(value));
  Var out = Leaf(std::move(value));
  Record([node = out.grad(), vjp = std::move(vjp)](Context& ctx) {
    if (node->started) vjp(ctx, node->grad);
  });
  return out;
}

std::vector<Var> Context::Results(std::vector<Tensor> values, const std::vector<Var>& inputs,
                                  Vjps vjps) {
  const bool wanted = recording_ && std::any_of(inputs.begin(), inputs.end(), Wanted);
  std::vector<Var> out;
  std::vector<GradRef> nodes;
  for (Tensor& v : values) {
    out.push_back(wanted ? Leaf(std::move(v)) : Var(std::move(v)));
    nodes.push_back(out.back().grad());
  }
  if (!wanted) return out;
  Record([nodes = std::move(nodes), vjps = std::move(vjps)](Context& ctx) {
    std::vector<Tensor> grads;
    bool any = false;
    for (const GradRef& n : nodes) {
      grads.push_back(n->started ? n->grad : Tensor());
      any = any || n->started;
    }
    if (any) vjps(ctx, grads);
  });
  return out;
}

// Gives a gradient its memory: its own, or, for a view (of a view), columns of the whole's.
void Context::PlaceGrad(GradNode& node) {
  if (node.grad.defined()) return;
  if (node.parent == nullptr) {
    node.grad = New(node.shape, node.dtype);
    return;
  }
  PlaceGrad(*node.parent);
  // Something else already wrote the whole gradient: this part adds to it.
  if (node.parent->started) node.started = true;
  node.grad = node.parent->grad.Slice(node.begin, node.shape[-1]);
}

GradSlot Context::GradOf(const GradRef& ref) {
  if (ref == nullptr) return {};
  PlaceGrad(*ref);
  const Grad mode = ref->started ? Grad::kAccumulate : Grad::kOverwrite;
  ref->started = true;
  return {ref->grad, mode};
}

void Context::GiveGrad(const GradRef& ref, const Tensor& grad) {
  if (ref == nullptr) return;
  if (!ref->started && ref->parent == nullptr && !ref->grad.defined()) {
    ref->grad = grad;
    ref->started = true;
    return;
  }
  const GradSlot slot = GradOf(ref);
  CopyInto(*this, grad, slot.tensor, slot.mode);
}

void Context::Backward(const Var& output, const Tensor& seed) {
  const std::pair<Var, Tensor> one[] = {{output, seed}};
  Backward(one);
}

void Context::Backward(std::span<const std::pair<Var, Tensor>> seeds) {
  const bool was_recording = std::exchange(recording_, false);
  const Phase phase = std::exchange(phase_, Phase::kBackward);
  for (const auto& [output, seed] : seeds)
    if (output.grad() != nullptr) GiveGrad(output.grad(), seed);
  RunTape();
  phase_ = phase;
  recording_ = was_recording;
}

void Context::RunTape() {
  const std::string path = path_;
  ScopeCost* const cost = cost_;
  while (!tape_.empty()) {
    Entry entry = std::move(tape_.back());
    tape_.pop_back();
    path_ = entry.path;
    cost_ = entry.cost;
    entry.run(*this);
  }
  path_ = path;
  cost_ = cost;
}

Var Context::Recompute(const Var& x, const std::function<Var(Context&, const Var&)>& f) {
  if (!recording_) return f(*this, x);
  recording_ = false;
  Tensor y = f(*this, x.Detach()).value();
  recording_ = true;
  // Parameters inside f want gradients even where x does not.
  Var out = Leaf(std::move(y));
  Record([node = out.grad(), x, f, training = training, position = position](Context& ctx) {
    if (!node->started) return;
    std::vector<Entry> outer = std::move(ctx.tape_);
    ctx.tape_.clear();
    const Tensor position_now = std::exchange(ctx.position, position);
    const bool training_now = std::exchange(ctx.training, training);
    const Phase phase = std::exchange(ctx.phase_, Phase::kRecompute);
    ctx.recording_ = true;
    const Var inner = x.grad() != nullptr ? Leaf(x.value()) : x.Detach();
    const Var y = f(ctx, inner);
    ctx.recording_ = false;
    ctx.phase_ = phase;
    if (y.grad() != nullptr) ctx.GiveGrad(y.grad(), node->grad);
    node->grad = Tensor();
    ctx.RunTape();
    if (inner.grad() != nullptr && inner.grad()->started)
      ctx.GiveGrad(x.grad(), inner.grad()->grad);
    ctx.training = training_now;
    ctx.position = position_now;
    ctx.tape_ = std::move(outer);
  });
  return out;
}

Context::Scope::Scope(Context& ctx, const std::string& name)
    : ctx_(ctx), path_(ctx.path_), cost_(ctx.cost_), live_bytes_(ctx.arena_->live_bytes()) {
  ctx.path_ = path_.empty() ? name : path_ + "." + name;
  ctx.cost_ = ctx.counter == nullptr ? nullptr : ctx.counter->At(ctx.path_);
}

Context::Scope::~Scope() {
  if (ctx_.cost_ != nullptr && ctx_.recording_ && ctx_.phase_ == Phase::kForward)
    ctx_.cost_->kept_bytes += ctx_.arena_->live_bytes() - live_bytes_;
  ctx_.path_ = path_;
  ctx_.cost_ = cost_;
}

void Context::Metric(const std::string& name, const Tensor& value) {
  if (metrics != nullptr) (*metrics)[{path_, name}] = value;
}

void Context::AddLoss(const std::string& name, double coefficient, const Tensor& value) {
  Metric(name, value);
  if (extra_losses != nullptr) (*extra_losses)[path_ + "." + name] = {coefficient, value};
}

}  // namespace tessera
