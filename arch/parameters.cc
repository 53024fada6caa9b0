#include "arch/parameters.h"

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

Var ParameterSet::Add(const std::string& name, const Shape& shape, Init init, Decay decay) {
  TESSERA_CHECK(names_.insert(name).second, "two parameters are called %s", name.c_str());
  Var var = Leaf(Tensor(arena_, shape, DType::kF32));
  if (with_gradients_) var.grad()->grad = Tensor(arena_, shape, DType::kF32);
  all_.push_back({name, var, decay, std::move(init)});
  return var;
}

int64_t ParameterSet::elements() const {
  int64_t n = 0;
  for (const Parameter& p : all_) n += p.var.shape().elements();
  return n;
}

void ParameterSet::Initialise(uint64_t seed, Device device) {
  std::vector<float> value;
  for (const Parameter& p : all_) {
    value.resize(static_cast<size_t>(p.var.shape().elements()));
    const Rng rng(seed, p.name);
    ParallelRanges(p.var.shape().elements(), 16384, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        value[static_cast<size_t>(i)] = static_cast<float>(p.init(rng, i));
    });
    Upload(device, p.var.value().raw(), value.data(), p.var.value().bytes());
  }
}

void ParameterSet::ForgetGradients() {
  for (const Parameter& p : all_) p.var.grad()->Forget();
}

}  // namespace tessera
