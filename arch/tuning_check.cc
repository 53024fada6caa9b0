#include "arch/tuning_check.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "arch/model.h"

namespace tessera {
namespace {

using Multiplied = ParameterSet::Multiplied;

// The parameters of a model without their memory. Their names are those with any vocabulary.
struct Outline {
  explicit Outline(const ModelConfig& config) : model(config, 256, &parameters) {}
  Arena arena{Arena::Backing::kMeta, 0};
  ParameterSet parameters{&arena, false};
  Model model;
};

// layers[2].recurrent.layers[0].mlp.in without the places in lists: mlp.in, which fits them all.
std::string WithoutPlace(const std::string& name) {
  const size_t bracket = name.rfind(']');
  return bracket == std::string::npos ? name : name.substr(bracket + 2);
}

// "; did you mean 'attention.q'? (projections: attention.q, mlp.in)"
std::string Candidates(const std::string& pattern, const char* what,
                       const std::vector<std::string>& names) {
  std::set<std::string> distinct;
  for (const std::string& name : names) distinct.insert(WithoutPlace(name));
  std::vector<std::string> all(distinct.begin(), distinct.end());
  const std::string near = Nearest(pattern, all);
  constexpr size_t kMost = 20;
  const size_t hidden = all.size() > kMost ? all.size() - kMost : 0;
  all.resize(all.size() - hidden);
  return absl::StrCat(near.empty() ? "" : absl::StrCat("; did you mean '", near, "'?"), " (", what,
                      ": ", absl::StrJoin(all, ", "),
                      hidden > 0 ? absl::StrCat(" and ", hidden, " more") : "", ")");
}

// What is wrong with adapters beside those of `all` that `adapted` chooses; "" if nothing is.
template <class Chosen>
std::string Mistake(const LoraConfig& lora, const std::vector<Multiplied>& all,
                    const Chosen& chosen) {
  if (lora.rank == 0) return "";
  const Multiplied* smallest = nullptr;
  std::vector<std::string> names;
  for (const Multiplied& m : all) {
    names.push_back(m.name);
    if (chosen(m) &&
        (smallest == nullptr || std::min(m.out, m.in) < std::min(smallest->out, smallest->in)))
      smallest = &m;
  }
  if (smallest == nullptr)
    return absl::StrCat("match: '", lora.match, "' fits no projection",
                        Candidates(lora.match, "projections", names));
  if (const int64_t most = std::min(smallest->out, smallest->in); lora.rank > most)
    return absl::StrCat("rank: ", lora.rank, " is more than ", smallest->name, ", ", smallest->out,
                        " x ", smallest->in, ", allows; take at most ", most,
                        ", or leave it out: match: \"", lora.match, "|!",
                        WithoutPlace(smallest->name), "\"");
  return "";
}

bool IsBelow(const std::string& name, const std::string& path) {
  return name.starts_with(path) && (name[path.size()] == '.' || name[path.size()] == '[');
}

void CheckLayers(const StackConfig& stack, const std::vector<Multiplied>& all,
                 std::set<std::string>* mistakes) {
  std::set<std::string> shared;
  for (const LayerConfig& l : stack.list) {
    if (l.lora) {
      std::vector<Multiplied> own;
      for (const Multiplied& m : all)
        if (IsBelow(m.name, l.path)) own.push_back(m);
      const std::string mistake =
          Mistake(*l.lora, own, [](const Multiplied& m) { return m.adapted; });
      if (!mistake.empty())
        mistakes->insert(absl::StrCat(l.branches[0].where.ToString(), ": lora: ", mistake));
    }
    // Layers inside of one that shares its weights are those of the first, which were seen.
    if (!l.share.empty() && !shared.insert(l.share).second) continue;
    for (const BranchConfig& b : l.branches)
      for (const HeldLayers& held : b.config->Layers()) CheckLayers(*held.layers, all, mistakes);
  }
}

bool HasOwnAdapters(const StackConfig& stack) {
  return std::ranges::any_of(stack.list, [](const LayerConfig& l) {
    return l.lora || std::ranges::any_of(l.branches, [](const BranchConfig& b) {
             return std::ranges::any_of(b.config->Layers(), [](const HeldLayers& held) {
               return HasOwnAdapters(*held.layers);
             });
           });
  });
}

// The place of a key in nested maps: of the innermost that is there.
const ConfigNode& NodeAt(const ConfigNode& map, std::initializer_list<const char*> keys) {
  const ConfigNode* node = &map;
  for (const char* key : keys)
    if (const ConfigNode* below = node->Find(key)) node = below;
  return *node;
}

}  // namespace

void CheckAdapters(const ModelConfig& config, const ConfigNode& model, ErrorList* errors) {
  const LoraConfig* const lora = config.tuning.lora();
  if (lora == nullptr && !HasOwnAdapters(config.layers)) return;
  Outline outline(config);
  const std::vector<Multiplied>& all = outline.parameters.multiplied();
  if (lora != nullptr) {
    const std::string mistake =
        Mistake(*lora, all, [&](const Multiplied& m) { return Fits(lora->match, m.name); });
    const char* const key = mistake.starts_with("rank") ? "rank" : "match";
    if (!mistake.empty())
      errors->Add(NodeAt(model, {"adapt", "lora", key}).Error("adapt.lora." + mistake));
  }
  std::set<std::string> mistakes;
  CheckLayers(config.layers, all, &mistakes);
  for (const std::string& m : mistakes) errors->Add(absl::InvalidArgumentError(m));
}

void CheckFreeze(const ModelConfig& config, const ConfigNode& freeze, ErrorList* errors) {
  const Outline outline(config);
  std::vector<std::string> names;
  for (const Parameter& p : outline.parameters.all()) names.push_back(p.name);
  for (size_t i = 0; i < config.tuning.freeze.size(); ++i) {
    const std::string& pattern = config.tuning.freeze[i];
    if (std::ranges::none_of(names, [&](const std::string& n) { return Fits(pattern, n); }))
      errors->Add((i < freeze.items.size() ? freeze.items[i] : freeze)
                      .Error(absl::StrCat("freeze: '", pattern, "' fits no parameter",
                                          Candidates(pattern, "parameters", names))));
  }
}

}  // namespace tessera
