#include "arch/parameters.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "core/parallel.h"
#include "kernels/device/memory.h"

namespace tessera {

Init Constant(double value) {
  return [=](const Rng&, int64_t) { return value; };
}

Init Normal(double deviation) {
  return
      [=](const Rng& rng, int64_t i) { return deviation * rng.Normal(static_cast<uint64_t>(i)); };
}

Init Uniform(double low, double high) {
  return [=](const Rng& rng, int64_t i) {
    return low + (high - low) * rng.Uniform(static_cast<uint64_t>(i));
  };
}

Init Symmetric(double bound) {
  return [=](const Rng& rng, int64_t i) {
    return bound * (2 * rng.Uniform(static_cast<uint64_t>(i)) - 1);
  };
}

Var ParameterSet::Add(ParameterSpec spec) {
  TESSERA_CHECK(names_.emplace(spec.name, all_.size()).second, "two parameters are called %s",
                spec.name.c_str());
  int64_t rows = 0;
  for (const Part& part : spec.parts) rows += part.rows;
  TESSERA_CHECK(spec.shape.rank() > 0 && rows == spec.shape[0], "the parts of %s %s have %ld rows",
                spec.name.c_str(), spec.shape.ToString().c_str(), rows);
  TESSERA_CHECK(spec.role != Role::kBuffer || !spec.trainable, "the buffer %s is trained",
                spec.name.c_str());
  const auto fits = [&](const std::string& pattern) { return Fits(pattern, spec.name); };
  if ((tuning_.adapt && !spec.adapter) || std::ranges::any_of(tuning_.freeze, fits))
    spec.trainable = false;
  const Tensor value(arena_, spec.shape, DType::kF32);
  Parameter p{std::move(spec), Var(value)};
  if (p.trainable) {
    p.var = Leaf(value);
    if (with_gradients_) p.var.grad()->grad = Tensor(arena_, p.shape, DType::kF32);
  }
  all_.push_back(std::move(p));
  return all_.back().var;
}

const Parameter* ParameterSet::Find(const std::string& name) const {
  const auto found = names_.find(name);
  return found == names_.end() ? nullptr : &all_[found->second];
}

bool ParameterSet::trains() const {
  return std::ranges::any_of(all_, [](const Parameter& p) { return p.trainable; });
}

int64_t ParameterSet::elements() const {
  int64_t n = 0;
  for (const Parameter& p : all_)
    if (p.role != Role::kBuffer) n += p.shape.elements();
  return n;
}

void ParameterSet::Initialise(uint64_t seed, Device device) {
  std::vector<float> value;
  for (const Parameter& p : all_) {
    value.resize(static_cast<size_t>(p.shape.elements()));
    const Rng rng(seed, p.name);
    const int64_t width = p.shape.elements() / std::max<int64_t>(1, p.shape[0]);
    int64_t first = 0;
    for (const Part& part : p.parts) {
      ParallelRanges(part.rows * width, 16384, [&](int64_t begin, int64_t end) {
        for (int64_t i = first + begin; i < first + end; ++i)
          value[static_cast<size_t>(i)] = static_cast<float>(part.init(rng, i));
      });
      first += part.rows * width;
    }
    Upload(device, p.var.value().raw(), value.data(), p.var.value().bytes());
  }
}

void ParameterSet::ForgetGradients() {
  for (const Parameter& p : all_)
    if (p.trainable) p.var.grad()->Forget();
}

Var Parameters::Add(ParameterSpec spec) {
  spec.name = weights_ + "." + spec.name;
  if (!shares_) return set_->Add(std::move(spec));
  const Parameter* const shared = set_->Find(spec.name);
  TESSERA_CHECK(shared != nullptr && shared->shape == spec.shape, "%s shares no %s %s",
                path_.c_str(), spec.name.c_str(), spec.shape.ToString().c_str());
  return shared->var;
}

// A is Gaussian and B zero at first (section 4.1); the deviation, which the paper leaves open, is
// that at which A x is as large as x.
LowRank Parameters::Adapter(const std::string& name, const ParameterSpec& weight,
                            const LoraConfig& lora, bool of_model) {
  const auto factor = [&](const char* letter, int64_t rows, int64_t columns, const Init& init) {
    ParameterSpec spec{.name = absl::StrCat(name, ".", letter),
                       .shape = weight.shape,
                       .role = weight.role,
                       .decay = weight.decay,
                       .adapter = of_model};
    if (spec.role == Role::kEmbedding) spec.role = Role::kMatrix;
    spec.shape.Set(-2, rows);
    spec.shape.Set(-1, columns);
    spec.parts = {{.rows = spec.shape[0], .init = init}};
    // The share of a token's experts is that of the weight.
    const int64_t each = weight.shape.elements() / weight.shape[0];
    spec.idle = weight.idle / each * (spec.shape.elements() / spec.shape[0]);
    const Parameter* const made = set_->Find(spec.name);
    return made != nullptr ? made->var : set_->Add(std::move(spec));
  };
  const int64_t out = weight.shape[-2], in = weight.shape[-1];
  return {.down = factor("A", lora.rank, in, Normal(1 / std::sqrt(static_cast<double>(in)))),
          .up = factor("B", out, lora.rank, Constant(0)),
          .scale = lora.scale()};
}

Projection Parameters::Multiplied(ParameterSpec spec) {
  Projection p;
  for (const Part& part : spec.parts) p.widths.push_back(part.rows);
  p.weight = Add(spec);
  const std::string name = weights_ + "." + spec.name, own_name = path_ + "." + spec.name;
  if (const LoraConfig* lora = set_->tuning().lora(); lora != nullptr && Fits(lora->match, name)) {
    p.adapters.push_back(Adapter(name + ".lora", spec, *lora, true));
    if (!shares_) set_->adapted().push_back({p.weight, p.adapters.back()});
  }
  const bool own = own_ && own_->rank > 0 && Fits(own_->match, own_name);
  if (own) p.adapters.push_back(Adapter(own_name + ".own", spec, *own_, false));
  set_->multiplied().push_back({own_name, spec.shape[-2], spec.shape[-1], own});
  return p;
}

Projection Parameters::Linear(const std::string& name, std::vector<Part> parts, int64_t in,
                              Biased biased) {
  int64_t out = 0;
  for (const Part& part : parts) out += part.rows;
  Projection p = Multiplied({.name = name,
                             .shape = {out, in},
                             .role = Role::kMatrix,
                             .decay = Decay::kYes,
                             .parts = std::move(parts)});
  if (biased == Biased::kYes) p.bias = Bias(name + "_bias", out);
  return p;
}

Projection Parameters::Experts(const std::string& name, int64_t experts, int64_t chosen,
                               int64_t out, int64_t in, Init init) {
  return Multiplied({.name = name,
                     .shape = {experts, out, in},
                     .role = Role::kExpert,
                     .decay = Decay::kYes,
                     .parts = {{.rows = experts, .init = std::move(init)}},
                     .idle = (experts - chosen) * out * in});
}

Projection Parameters::Head(const std::string& name, int64_t vocab, int64_t width) {
  return Multiplied({.name = name,
                     .shape = {vocab, width},
                     .role = Role::kEmbedding,
                     .decay = Decay::kYes,
                     .parts = {{.rows = vocab}}});
}

namespace {

std::string Below(const std::string& path, const std::string& name) {
  return path.empty() || name[0] == '[' ? path + name : path + "." + name;
}

}  // namespace

Parameters Parameters::At(const std::string& name) const {
  Parameters p = *this;
  p.path_ = Below(path_, name);
  p.weights_ = Below(weights_, name);
  return p;
}

Parameters Parameters::AtWith(const std::string& name, const LoraConfig& own) const {
  Parameters p = At(name);
  p.own_ = own;
  return p;
}

Parameters Parameters::Sharing(const std::string& name, const std::string& lender,
                               const std::optional<LoraConfig>& own) const {
  Parameters p = *this;
  p.shares_ = true;
  p.path_ = Below(path_, own ? name : lender);
  p.weights_ = Below(weights_, lender);
  if (own) p.own_ = own;
  return p;
}

}  // namespace tessera
