#ifndef TESSERA_ARCH_PARAMETERS_H_
#define TESSERA_ARCH_PARAMETERS_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "arch/tuning.h"
#include "core/rng.h"
#include "ops/projection.h"

namespace tessera {

// How a parameter starts: element i, counted over the whole of it, as a function of the parameter's
// own random stream, so that it depends on the seed and its name alone.
using Init = std::function<double(const Rng&, int64_t i)>;
Init Constant(double value);
Init Normal(double deviation);
Init Uniform(double low, double high);
Init Symmetric(double bound);  // uniform in (-bound, bound)

// Whether weight decay applies: matrices yes; gains, biases and gates' own parameters no.
enum class Decay : uint8_t { kNo, kYes };

// What a parameter is to an optimiser.
enum class Role : uint8_t {
  kMatrix,     // [out, in]: multiplies activations
  kExpert,     // [experts, out, in]: a matrix an expert
  kEmbedding,  // [vocabulary, D]: looked up by token, or scores tokens
  kVector,     // any other: gains, biases, taps
  kBuffer,     // not a parameter: saved with them, and moved by its owner alone
};

// Some rows of a parameter, which start in a way of their own.
struct Part {
  std::string name = {};
  int64_t rows;
  Init init = Normal(0.02);
};

struct ParameterSpec {
  std::string name;  // layers[2].mamba2.in_proj
  Shape shape;
  Role role;
  Decay decay;
  std::vector<Part> parts;  // all rows of the first dimension, in order
  double lr_scale = 1;      // times the step's learning rate
  bool trainable = true;    // false: frozen, without a gradient or a state of the optimiser
  bool adapter = false;     // of the model's adapters (Tuning::lora), beside its weights
  int64_t idle = 0;         // elements that one token does not use, as of experts
};

struct Parameter : ParameterSpec {
  // fp32. Its gradient is a tensor of the same arena, kept from step to step; what is not trained
  // has none.
  Var var;
};

// The parameters of a model, in the order they were made.
class ParameterSet {
 public:
  // A weight that is multiplied, and whether it has an adapter of the layer that multiplies it.
  struct Multiplied {
    std::string name;
    int64_t out, in;
    bool adapted;
  };
  // A weight with an adapter of the model's, that they may be merged.
  struct Adapted {
    Var weight;
    LowRank adapter;
  };

  // Values (and gradients, where asked for) are cut from the arena; on a meta arena they take no
  // memory.
  ParameterSet(Arena* arena, bool with_gradients)
      : arena_(arena), with_gradients_(with_gradients) {}
  // Of the parameters that are added from now on.
  void Tune(const Tuning& tuning) { tuning_ = tuning; }
  const Tuning& tuning() const { return tuning_; }
  Var Add(ParameterSpec spec);
  const Parameter* Find(const std::string& name) const;  // null without
  const std::vector<Parameter>& all() const { return all_; }
  // In the order of their use; weights that several layers share once for each.
  std::vector<Multiplied>& multiplied() { return multiplied_; }
  std::vector<Adapted>& adapted() { return adapted_; }
  int64_t elements() const;  // without those of buffers
  bool trains() const;       // anything at all
  // Fills every value, in the memory of `device`, from (seed, name).
  void Initialise(uint64_t seed, Device device = Device::kCpu);
  // The next contribution to each gradient overwrites it.
  void ForgetGradients();

 private:
  Arena* arena_;
  bool with_gradients_;
  Tuning tuning_;
  std::vector<Parameter> all_;
  std::unordered_map<std::string, size_t> names_;
  std::vector<Multiplied> multiplied_;
  std::vector<Adapted> adapted_;
};

// What a block's constructor is handed: makes parameters under the block's path, or, for a layer
// that shares another's weights, hands out those that are there.
class Parameters {
 public:
  Parameters(ParameterSet* set, std::string path) : set_(set), path_(path), weights_(path) {}
  Var Add(ParameterSpec spec);
  Var Add(const std::string& name, const Shape& shape, Init init, Decay decay,
          Role role = Role::kVector) {
    return Add({.name = name,
                .shape = shape,
                .role = role,
                .decay = decay,
                .parts = {{.rows = shape[0], .init = std::move(init)}}});
  }
  // y = W x, with a bias of zeros `name`_bias where it has one; `parts` are the rows of W [out,
  // in], which decays.
  enum class Biased : uint8_t { kNo, kYes };
  Projection Linear(const std::string& name, std::vector<Part> parts, int64_t in,
                    Biased biased = Biased::kNo);
  // The same in one part.
  Projection Linear(const std::string& name, int64_t out, int64_t in, Init init = Normal(0.02)) {
    return Linear(name, {{.rows = out, .init = std::move(init)}}, in);
  }
  // A matrix [out,in] for each of `experts`, of which a token uses `chosen`.
  Projection Experts(const std::string& name, int64_t experts, int64_t chosen, int64_t out,
                     int64_t in, Init init);
  // Scores of the tokens of a vocabulary.
  Projection Head(const std::string& name, int64_t vocab, int64_t width);
  Var Embedding(const std::string& name, int64_t vocab, int64_t width) {
    return Add(name, {vocab, width}, Normal(0.02), Decay::kYes, Role::kEmbedding);
  }
  // Saved with the parameters, but not trained: whoever asked for it writes it.
  Var Buffer(const std::string& name, const Shape& shape, Init init) {
    return Add({.name = name,
                .shape = shape,
                .role = Role::kBuffer,
                .decay = Decay::kNo,
                .parts = {{.rows = shape[0], .init = std::move(init)}},
                .trainable = false});
  }
  // A gain of ones or a bias of zeros; does not decay.
  Var Gain(const std::string& name, int64_t width) {
    return Add(name, {width}, Constant(1), Decay::kNo);
  }
  Var Bias(const std::string& name, int64_t width) {
    return Add(name, {width}, Constant(0), Decay::kNo);
  }
  // For a part of the block: its parameters are under this one's path.
  Parameters At(const std::string& name) const;
  // The same with adapters of its own beside the weights: it is one of several that share them.
  Parameters AtWith(const std::string& name, const LoraConfig& own) const;
  // For the part `name`, which has the weights of the part `lender`, and, without adapters of its
  // own, the lender's.
  Parameters Sharing(const std::string& name, const std::string& lender,
                     const std::optional<LoraConfig>& own) const;
  const std::string& path() const { return path_; }

 private:
  Projection Multiplied(ParameterSpec spec);
  LowRank Adapter(const std::string& name, const ParameterSpec& weight, const LoraConfig& lora,
                  bool of_model);

  ParameterSet* set_;
  std::string path_;     // of its own adapters
  std::string weights_;  // of all else: another's where they are shared
  bool shares_ = false;
  std::optional<LoraConfig> own_;
};

}  // namespace tessera

#endif  // TESSERA_ARCH_PARAMETERS_H_
