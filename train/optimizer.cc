#include "train/optimizer.h"

#include "absl/strings/str_cat.h"
#include "kernels/device/memory.h"

namespace tessera {

extern const OptimizerType kAdamW, kLion, kMuon, kSgd;

std::span<const OptimizerType* const> Optimizers() {
  static constexpr const OptimizerType* kAll[] = {&kAdamW, &kLion, &kMuon, &kSgd};
  return kAll;
}

const OptimizerKey* OptimizerType::Find(const std::string& key) const {
  for (const OptimizerKey& k : keys)
    if (key == k.name) return &k;
  return nullptr;
}

namespace {

// What a key may be; what it means to whom stands in the optimisers' own files.
struct KeyOfAny {
  const char* name;
  Range range;
  const char* doc;
};
const std::vector<KeyOfAny>& KeysOfAll() {
  static const auto* const keys = new std::vector<KeyOfAny>{
      {"beta1", FromBelow(0, 1), "how much of the mean gradient stays; of lion, in its update"},
      {"beta2", FromBelow(0, 1), "how much of the mean square stays; of lion, of its state"},
      {"epsilon", Positive(), "added to the root of the mean square"},
      {"momentum", FromBelow(0, 1), "how much of the sum of gradients stays"}};
  return *keys;
}

// "`optimizer: adamw`, lion or muon"
std::string Readers(const std::string& key) {
  std::vector<std::string> names;
  for (const OptimizerType* type : Optimizers())
    if (type->Find(key) != nullptr) names.emplace_back(type->name);
  std::string text = absl::StrCat("`optimizer: ", names[0], "`");
  for (size_t i = 1; i < names.size(); ++i)
    absl::StrAppend(&text, i + 1 < names.size() ? ", " : " or ", names[i]);
  return text;
}

}  // namespace

double OptimizerConfig::Get(const std::string& key) const {
  if (const auto at = given.find(key); at != given.end() && at->second) return *at->second;
  if (const OptimizerKey* own = type->Find(key)) return own->value;
  for (const OptimizerType* other : Optimizers())
    if (const OptimizerKey* k = other->Find(key)) return k->value;
  TESSERA_CHECK(false, "no optimiser has a key %s", key.c_str());
  return 0;
}

void OptimizerConfig::Fields(FieldList& f) {
  std::vector<std::pair<const char*, const OptimizerType*>> names;
  for (const OptimizerType* each : Optimizers()) names.emplace_back(each->name, each);
  f.Add("optimizer", type, names, "how the parameters are moved");
  f.Add("weight_decay", weight_decay, AtLeast(0), "of matrices");
  for (const KeyOfAny& key : KeysOfAll()) {
    const std::string name = key.name;
    f.Add(
         key.name, given[name], key.range, [this, name] { return Get(name); }, key.doc)
        .OnlyWith(Readers(name).c_str(), [this, name] { return type->Find(name) != nullptr; });
  }
}

Optimizer::Optimizer(const OptimizerSetup& setup, const StatesOf& states_of)
    : device_(setup.device) {
  for (const Parameter& p : setup.parameters.all()) {
    if (!p.trainable) continue;
    OptimizerTensor t = {
        .parameter = p.var.data<float>(),
        .gradient = p.var.grad()->grad.data<float>(),
        .size = p.shape.elements(),
        .weight_decay = p.decay == Decay::kYes ? static_cast<float>(setup.config.weight_decay) : 0,
        .lr_scale = static_cast<float>(p.lr_scale)};
    float** const places[] = {&t.first_state, &t.second_state};
    size_t next = 0;
    for (const std::string& prefix : states_of(p)) {
      const Tensor state(setup.arena, p.shape, DType::kF32);
      Zero(device_, state.raw(), state.bytes());
      *places[next++] = state.data<float>();
      states_.push_back({prefix + p.name, state});
    }
    tensors_.push_back(t);
  }
}

void Optimizer::SetCorrections(int64_t, OptimizerStep* step) const {
  step->first_correction = step->second_correction = 1;
}

std::unique_ptr<Optimizer> MakeOptimizer(const OptimizerSetup& setup) {
  return setup.config.type->make(setup);
}

}  // namespace tessera
