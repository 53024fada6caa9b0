#include "arch/draw.h"

#include <algorithm>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace tessera {
namespace {

// "heads: 8, window: 256": what was chosen, but for layers inside, which are drawn.
std::string ChosenKeys(const BranchConfig& b) {
  FieldList chosen, defaults;
  const auto fresh = b.type->make_config();
  b.config->Fields(chosen);
  fresh->Fields(defaults);
  std::set<std::string> drawn;
  for (const HeldLayers& held : b.config->Layers()) drawn.insert(held.key);
  const ConfigNode now = PrintMap(chosen), before = PrintMap(defaults);
  std::string text;
  for (const ConfigNode::Entry& e : now.entries) {
    if (drawn.count(e.key) > 0) continue;
    const ConfigNode* const fresh_value = before.Find(e.key);  // null: dead at the defaults
    const std::string value =
        e.value.kind == ConfigNode::Kind::kNull ? "none" : PrintYamlFlow(e.value);
    if (fresh_value == nullptr || PrintYamlFlow(e.value) != PrintYamlFlow(*fresh_value))
      absl::StrAppend(&text, text.empty() ? "" : ", ", e.key, ": ", value);
  }
  return text;
}

// x + 0.5 f(norm x).
std::string Formula(const LayerConfig& l) {
  std::string f = l.branches.size() == 1 ? "f" : l.combine == Join::kSum ? "sum f" : "mean f";
  if (l.branches.size() > 1 && l.combine == Join::kConcat) f = "W concat f";
  const std::string scale = l.residual_scale == 1 ? "" : absl::StrFormat("%g ", l.residual_scale);
  const std::string stream = l.residual ? absl::StrCat("x + ", scale) : "";
  const std::string in = l.input.empty() ? "x" : l.input;
  switch (l.norm) {
    case NormPlace::kPre:
      return absl::StrCat(stream, f, "(norm ", in, ")");
    case NormPlace::kPost:
      return absl::StrCat("norm(", stream, f, "(", in, "))");
    case NormPlace::kSandwich:
      return absl::StrCat(stream, "norm(", f, "(norm ", in, "))");
    case NormPlace::kNone:
      break;
  }
  return absl::StrCat(stream, f, "(", in, ")");
}

// Every line of `text` behind `margin`.
std::string Indented(const std::string& text, const std::string& margin) {
  std::string out = margin;
  for (const char c : text) {
    out += c;
    if (c == '\n') out += margin;
  }
  return out + "\n";
}

std::string DrawStack(const StackConfig& stack);

// The lists of layers inside of a block.
std::string DrawInside(const BranchConfig& b) {
  std::string text;
  for (const HeldLayers& held : b.config->Layers()) {
    if (b.config->Layers().size() > 1) absl::StrAppend(&text, "\n", held.key);
    std::string inside = DrawStack(*held.layers);
    inside.pop_back();
    absl::StrAppend(&text, "\n", inside);
  }
  return text;
}

// `text`, whose lines but the first stand behind `margin`.
std::string Below(const std::string& text, const std::string& margin) {
  return absl::StrReplaceAll(text, {{"\n", "\n" + margin}});
}

// A layer without its number, so that layers that repeat look alike.
std::string DrawLayer(const LayerConfig& l) {
  std::string notes = l.branches.size() == 1 ? ChosenKeys(l.branches[0]) : "";
  const auto note = [&](const std::string& text) {
    absl::StrAppend(&notes, notes.empty() ? "" : "; ", text);
  };
  if (!l.name.empty()) note("named " + l.name);
  if (!l.share.empty()) note("weights shared as " + l.share);
  if (l.lora) note(absl::StrCat("with an adapter of its own of rank ", l.lora->rank));
  if (l.recompute) note("recomputed");
  const auto row = [](const std::string& text) {
    return std::string(absl::StripTrailingAsciiWhitespace(text));
  };
  const size_t n = l.branches.size();
  const std::string name = n == 1 ? l.branches[0].type->name : "parallel";
  std::string text = row(absl::StrFormat("├─ %-14s %-22s %s", name, Formula(l), notes));
  if (n == 1) return text + Below(DrawInside(l.branches[0]), "│    ");
  for (size_t b = 0; b < n; ++b) {
    const BranchConfig& branch = l.branches[b];
    const bool last = b + 1 == n;
    absl::StrAppend(&text, "\n",
                    row(absl::StrFormat("│    %s %-11s %-22s %s", last ? "└" : "├",
                                        branch.type->name, "", ChosenKeys(branch))),
                    Below(DrawInside(branch), last ? "│         " : "│    │    "));
  }
  return text;
}

std::string DrawStack(const StackConfig& stack) {
  std::vector<std::string> layers;
  for (const LayerConfig& l : stack.list) layers.push_back(DrawLayer(l));
  std::string out;
  for (size_t i = 0; i < layers.size();) {
    // The stretch from here on that repeats and covers most.
    size_t period = 1, times = 1;
    for (size_t p = 1; 2 * p <= layers.size() - i; ++p) {
      size_t n = 1;
      while (i + (n + 1) * p <= layers.size() &&
             std::equal(layers.begin() + static_cast<std::ptrdiff_t>(i),
                        layers.begin() + static_cast<std::ptrdiff_t>(i + p),
                        layers.begin() + static_cast<std::ptrdiff_t>(i + n * p)))
        ++n;
      if (n > 1 && n * p > times * period) period = p, times = n;
    }
    if (times > 1) absl::StrAppendFormat(&out, "│ ┌ %d times\n", times);
    for (size_t j = 0; j < period; ++j) out += Indented(layers[i + j], times > 1 ? "│ │ " : "");
    if (times > 1) out += "│ └\n";
    i += times * period;
  }
  return out;
}

}  // namespace

std::string DrawGraph(const ModelConfig& config, int64_t vocab_size) {
  std::string out = absl::StrFormat("tokens\n│  embedding %d x %d\n", vocab_size, config.d_model);
  out += DrawStack(config.layers);
  absl::StrAppendFormat(&out, "│  %s norm\nlogits   head %d x %d%s\n",
                        config.norm == NormKind::kRms ? "rms" : "layer", vocab_size, config.d_model,
                        config.tie_embeddings ? ", the embedding's weights" : "");
  return out;
}

}  // namespace tessera
