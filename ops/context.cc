#include "ops/context.h"

#include <algorithm>

#include "kernels/device/memory.h"
#include "kernels/pointwise/copy.h"

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

void ZeroColumns(Context& ctx, const Tensor& t, const ColumnRange& range) {
  const int64_t size = SizeOf(t.dtype());
  const Tensor columns = t.Slice(range.begin, range.end - range.begin);
  Zero(ctx.device(), columns.raw(), columns.rows(), columns.stride() * size,
       (range.end - range.begin) * size);
}

bool HasGrad(const Var& v) { return v.grad() != nullptr; }

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

const Context::Vars& Context::Read(const std::string& port) const {
  TESSERA_CHECK(ports != nullptr && ports->reads.count(port) > 0,
                "a block reads %s, which it did not declare", port.c_str());
  const std::string& address = ports->reads.at(port);
  const auto found = board.find(address);
  TESSERA_CHECK(found != board.end(), "nothing was left at %s", address.c_str());
  return found->second;
}

bool Context::Wanted(const std::string& port) const {
  return ports != nullptr && ports->leaves.count(port) > 0;
}

void Context::Leave(const std::string& port, Vars values) {
  if (Wanted(port)) board[ports->leaves.at(port)] = std::move(values);
}

void Context::EndPass() {
  for (const auto& change : std::exchange(at_end, {})) change(*this);
}

void Context::Record(std::function<void(Context&)> run) {
  tape_.push_back({std::move(run), path_, cost_});
}

Var Context::Result(Tensor value, std::initializer_list<Var> inputs, Vjp vjp) {
  if (!recording_ || std::none_of(inputs.begin(), inputs.end(), HasGrad))
    return Var(std::move(value));
  Var out = Leaf(std::move(value));
  Record([node = out.grad(), vjp = std::move(vjp)](Context& ctx) {
    if (node->started) vjp(ctx, node->grad);
  });
  return out;
}

std::vector<Var> Context::Results(std::vector<Tensor> values, const std::vector<Var>& inputs,
                                  Vjps vjps) {
  const bool wanted = recording_ && std::any_of(inputs.begin(), inputs.end(), HasGrad);
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

// Where a contribution to a gradient goes, which counts as made. Where only some of its columns
// have had one, the others start from zero.
GradSlot Context::PlaceOf(GradNode& node) {
  GradNode& whole = node.Whole();
  if (!whole.grad.defined()) whole.grad = New(whole.shape, whole.dtype);
  if (whole.borrowed) {
    const Tensor own = New(whole.shape, whole.dtype);
    CopyInto(*this, whole.grad, own, Grad::kOverwrite);
    whole.grad = own;
    whole.borrowed = false;
  }
  const Tensor place =
      node.whole == nullptr ? whole.grad : whole.grad.Slice(node.begin, node.shape[-1]);
  if (whole.started) return {place, Grad::kAccumulate};
  const ColumnRange range = node.Range();
  const std::vector<ColumnRange> untouched = whole.Untouched(range);
  whole.Touch(range);
  if (untouched.size() == 1 && untouched[0].begin == range.begin && untouched[0].end == range.end)
    return {place, Grad::kOverwrite};
  for (const ColumnRange& r : untouched) ZeroColumns(*this, whole.grad, r);
  return {place, Grad::kAccumulate};
}

GradSlot Context::GradOf(const GradRef& ref) {
  if (ref == nullptr) return {};
  if (running_ == nullptr) return PlaceOf(*ref);
  const Claim claim{&ref->Whole(), ref->Range()};
  const auto overlaps = [&](const Claim& c) {
    return c.whole == claim.whole && c.columns.Overlaps(claim.columns);
  };
  if (std::any_of(running_->claims.begin(), running_->claims.end(), overlaps)) {
    running_->gifts.emplace_back(ref, New(ref->shape, ref->dtype));
    return {running_->gifts.back().second, Grad::kOverwrite};
  }
  running_->claims.push_back(claim);
  return PlaceOf(*ref);
}

void Context::GiveGrad(const GradRef& ref, const Tensor& grad) {
  if (ref == nullptr) return;
  TESSERA_CHECK(running_ != nullptr, "a gradient of %s is given outside of the backward pass",
                grad.shape().ToString().c_str());
  running_->gifts.emplace_back(ref, grad);
}

void Context::AddGrad(GradNode& node, const Tensor& grad, Memory memory) {
  TESSERA_CHECK(grad.dtype() == node.dtype && grad.elements() == node.shape.elements() &&
                    (grad.shape().rank() == 0 || grad.dim(-1) == node.shape[-1]),
                "a gradient of %s %s for a value of %s %s", Name(grad.dtype()),
                grad.shape().ToString().c_str(), Name(node.dtype), node.shape.ToString().c_str());
  if (memory == Memory::kGiven && node.whole == nullptr && !node.grad.defined() &&
      grad.contiguous()) {
    node.grad = grad;
    node.started = true;
    node.borrowed = std::any_of(seeds_.begin(), seeds_.end(),
                                [&](const auto& seed) { return seed.second.SharesMemory(grad); });
    return;
  }
  const GradSlot slot = PlaceOf(node);
  CopyInto(*this, grad, slot.tensor, slot.mode);
}

void Context::AddGifts(const Running& running) {
  for (size_t i = 0; i < running.gifts.size(); ++i) {
    const auto& [ref, grad] = running.gifts[i];
    // What is given twice may not become a gradient that others are added to.
    Memory memory = Memory::kGiven;
    for (size_t j = 0; j < running.gifts.size(); ++j)
      if (j != i && running.gifts[j].second.SharesMemory(grad)) memory = Memory::kShared;
    AddGrad(*ref, grad, memory);
  }
}

void Context::CompleteGrad(const GradRef& ref) {
  if (ref == nullptr) return;
  GradNode& whole = ref->Whole();
  const ColumnRange range = ref->Range();
  const std::vector<ColumnRange> untouched = whole.Untouched(range);
  const bool none =
      untouched.size() == 1 && untouched[0].begin == range.begin && untouched[0].end == range.end;
  if (untouched.empty() || none) return;
  for (const ColumnRange& r : untouched) ZeroColumns(*this, whole.grad, r);
  whole.Touch(range);
}

void Context::Backward(const Var& output, const Tensor& seed) {
  const std::pair<Var, Tensor> one[] = {{output, seed}};
  Backward(one);
}

void Context::Backward(std::span<const std::pair<Var, Tensor>> seeds) {
  const bool was_recording = std::exchange(recording_, false);
  const Phase phase = std::exchange(phase_, Phase::kBackward);
  seeds_ = seeds;
  for (const auto& [output, seed] : seeds)
    if (output.grad() != nullptr) AddGrad(*output.grad(), seed, Memory::kGiven);
  RunTape();
  seeds_ = {};
  phase_ = phase;
  recording_ = was_recording;
}

void Context::RunTape() {
  const std::string path = path_;
  ScopeCost* const cost = cost_;
  Running running;
  Running* const outer = std::exchange(running_, &running);
  while (!tape_.empty()) {
    Entry entry = std::move(tape_.back());
    tape_.pop_back();
    path_ = entry.path;
    cost_ = entry.cost;
    entry.run(*this);
    AddGifts(running);
    running.claims.clear();
    running.gifts.clear();
  }
  running_ = outer;
  path_ = path;
  cost_ = cost;
}

Context::Vars Context::Recompute(const Vars& xs,
                                 const std::function<Vars(Context&, const Vars&)>& f) {
  if (!recording_) return f(*this, xs);
  recording_ = false;
  Vars constants, ys;
  for (const Var& x : xs) constants.push_back(x.Detach());
  const Vars values = f(*this, constants);
  recording_ = true;
  // Parameters inside f want gradients even where no x does.
  std::vector<GradRef> nodes;
  for (const Var& v : values) {
    ys.push_back(v.defined() ? Leaf(v.value()) : Var());
    nodes.push_back(ys.back().grad());
  }
  Record([nodes, xs, f, training = training, position = position, start = start](Context& ctx) {
    const auto arrived = [](const GradRef& n) { return n != nullptr && n->started; };
    if (std::none_of(nodes.begin(), nodes.end(), arrived)) return;
    std::vector<Entry> outer = std::move(ctx.tape_);
    ctx.tape_.clear();
    const Tensor position_now = std::exchange(ctx.position, position);
    const Tensor start_now = std::exchange(ctx.start, start);
    const bool training_now = std::exchange(ctx.training, training);
    const Phase phase = std::exchange(ctx.phase_, Phase::kRecompute);
    ctx.recording_ = true;
    Vars inner;
    for (const Var& x : xs) inner.push_back(HasGrad(x) ? Leaf(x.value()) : x.Detach());
    const Vars again = f(ctx, inner);
    TESSERA_CHECK(again.size() == nodes.size(), "a function of %zu results has %zu when run again",
                  nodes.size(), again.size());
    ctx.recording_ = false;
    ctx.phase_ = phase;
    for (size_t i = 0; i < nodes.size(); ++i) {
      if (!arrived(nodes[i])) continue;
      if (HasGrad(again[i])) ctx.AddGrad(*again[i].grad(), nodes[i]->grad, Memory::kGiven);
      nodes[i]->grad = Tensor();
    }
    ctx.RunTape();
    for (size_t i = 0; i < xs.size(); ++i)
      if (arrived(inner[i].grad())) ctx.GiveGrad(xs[i].grad(), inner[i].grad()->grad);
    ctx.training = training_now;
    ctx.position = position_now;
    ctx.start = start_now;
    ctx.tape_ = std::move(outer);
  });
  return ys;
}

Context::Scope::Scope(Context& ctx, const std::string& name)
    : ctx_(ctx), path_(ctx.path_), cost_(ctx.cost_), live_bytes_(ctx.arena_->live_bytes()) {
  ctx.path_ = path_.empty() || name[0] == '[' ? path_ + name : path_ + "." + name;
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

void Context::AddLoss(const std::string& name, double coefficient, const Var& value) {
  TESSERA_CHECK(value.value().elements() == 1 && value.dtype() == DType::kF32,
                "a loss of %s, not one fp32", value.shape().ToString().c_str());
  Metric(name, value.value());
  if (extra_losses != nullptr) (*extra_losses)[path_ + "." + name] = {coefficient, value.value()};
  if (!recording_ || value.grad() == nullptr) return;
  // Runs in the backward pass after whatever was recorded later, and before the value's own vjp.
  Record([ref = value.grad(), coefficient](Context& ctx) {
    const GradSlot slot = ctx.GradOf(ref);
    ctx.Run(CopyArgs<float>{.x = ctx.loss_scale.data<float>(),
                            .x_stride = 1,
                            .y = slot.data<float>(),
                            .y_stride = 1,
                            .mode = slot.mode,
                            .factor = static_cast<float>(coefficient),
                            .ones = !ctx.loss_scale.defined(),
                            .rows = 1,
                            .C = 1});
  });
}

}  // namespace tessera
