#ifndef TESSERA_ARCH_PARAMETERS_H_
#define TESSERA_ARCH_PARAMETERS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <unordered_set>
#include <vector>

#include "core/rng.h"
#include "ops/context.h"

namespace tessera {

// How a parameter starts: element i as a function of the parameter's own random stream, so that it
// depends on the seed and its name alone.
using Init = std::function<double(const Rng&, int64_t i)>;
Init Constant(double value);
Init Normal(double deviation);
Init Uniform(double low, double high);

// Whether weight decay applies: matrices yes; gains, biases and gates' own parameters no.
enum class Decay : uint8_t { kNo, kYes };

struct Parameter {
  std::string name;  // layers[2].mamba2.in_proj
  Var var;           // fp32; its gradient is a tensor of the same arena, kept from step to step
  Decay decay;
  Init init;
};

// The parameters of a model, in the order they were made.
class ParameterSet {
 public:
  // Values (and gradients, where asked for) are cut from the arena; on a meta arena they take no
  // memory.
  ParameterSet(Arena* arena, bool with_gradients)
      : arena_(arena), with_gradients_(with_gradients) {}
  Var Add(const std::string& name, const Shape& shape, Init init, Decay decay);
  const std::vector<Parameter>& all() const { return all_; }
  int64_t elements() const;
  // Fills every value, in the memory of `device`, from (seed, name).
  void Initialise(uint64_t seed, Device device = Device::kCpu);
  // The next contribution to each gradient overwrites it.
  void ForgetGradients();

 private:
  Arena* arena_;
  bool with_gradients_;
  std::vector<Parameter> all_;
  std::unordered_set<std::string> names_;
};

// What a block's constructor is handed: makes parameters under the block's path.
class Parameters {
 public:
  Parameters(ParameterSet* set, std::string path) : set_(set), path_(std::move(path)) {}
  Var Add(const std::string& name, const Shape& shape, Init init, Decay decay) {
    return set_->Add(path_ + "." + name, shape, std::move(init), decay);
  }
  // A projection's weight [out, in], y = W x, normal with deviation 0.02 unless said otherwise;
  // decays.
  Var Weight(const std::string& name, int64_t out, int64_t in, Init init = Normal(0.02)) {
    return Add(name, {out, in}, std::move(init), Decay::kYes);
  }
  // A gain of ones or a bias of zeros; does not decay.
  Var Gain(const std::string& name, int64_t width) {
    return Add(name, {width}, Constant(1), Decay::kNo);
  }
  Var Bias(const std::string& name, int64_t width) {
    return Add(name, {width}, Constant(0), Decay::kNo);
  }
  const std::string& path() const { return path_; }

 private:
  ParameterSet* set_;
  std::string path_;
};

}  // namespace tessera

#endif  // TESSERA_ARCH_PARAMETERS_H_
