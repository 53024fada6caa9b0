#include "arch/parameters.h"

#include <algorithm>

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
  TESSERA_CHECK(names_.insert(spec.name).second, "two parameters are called %s", spec.name.c_str());
  int64_t rows = 0;
  for (const Part& part : spec.parts) rows += part.rows;
  TESSERA_CHECK(spec.shape.rank() > 0 && rows == spec.shape[0], "the parts of %s %s have %ld rows",
                spec.name.c_str(), spec.shape.ToString().c_str(), rows);
  TESSERA_CHECK(spec.role != Role::kBuffer || !spec.trainable, "the buffer %s is trained",
                spec.name.c_str());
  const Tensor value(arena_, spec.shape, DType::kF32);
  Parameter p{std::move(spec), Var(value)};
  if (p.trainable) {
    p.var = Leaf(value);
    if (with_gradients_) p.var.grad()->grad = Tensor(arena_, p.shape, DType::kF32);
  }
  all_.push_back(std::move(p));
  return all_.back().var;
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

Projection Parameters::Linear(const std::string& name, std::vector<Part> parts, int64_t in,
                              Biased biased) {
  Projection p;
  int64_t out = 0;
  for (const Part& part : parts) {
    p.widths.push_back(part.rows);
    out += part.rows;
  }
  p.weight = Add({.name = name,
                  .shape = {out, in},
                  .role = Role::kMatrix,
                  .decay = Decay::kYes,
                  .parts = std::move(parts)});
  if (biased == Biased::kYes) p.bias = Bias(name + "_bias", out);
  return p;
}

}  // namespace tessera
