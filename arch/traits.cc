#include "arch/traits.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "absl/strings/str_cat.h"

namespace tessera {
namespace {

using Visit = std::function<void(const BranchConfig&, const Traits&)>;

// Each block with its own traits, those inside of blocks after them.
void ForEachBlock(const StackConfig& stack, const Visit& visit) {
  for (const LayerConfig& layer : stack.list)
    for (const BranchConfig& b : layer.branches) {
      if (b.config == nullptr) continue;
      visit(b, b.config->TraitsAt(b.shape));
      for (const HeldLayers& held : b.config->Layers()) ForEachBlock(*held.layers, visit);
    }
}

void AddError(const BranchConfig& b, const Traits& t, const std::string& what, ErrorList* errors) {
  errors->Add(absl::InvalidArgumentError(
      absl::StrCat(b.where.ToString(), ": ", b.path, ": ", what, ", since ", t.why)));
}

}  // namespace

Traits Meet(const Traits& a, const Traits& b) {
  return {.causal = std::max(a.causal, b.causal),
          .packs = a.packs && b.packs,
          .mixes_rows = a.mixes_rows || b.mixes_rows,
          .decodes = a.decodes && b.decodes,
          .multiple_of = std::lcm(a.multiple_of, b.multiple_of),
          .max_tokens = a.max_tokens == 0 || b.max_tokens == 0
                            ? a.max_tokens + b.max_tokens
                            : std::min(a.max_tokens, b.max_tokens),
          .reads_values = a.reads_values || b.reads_values,
          .why = a.why[0] == '\0' ? b.why : a.why};
}

Traits TraitsOf(const BranchConfig& block) {
  Traits all = block.config->TraitsAt(block.shape);
  for (const HeldLayers& held : block.config->Layers()) {
    Traits inside = TraitsOf(*held.layers);
    // Of sequences of another length the block says itself what they make of its own.
    if (held.reshape != nullptr) inside.multiple_of = 1, inside.max_tokens = 0;
    all = Meet(all, inside);
  }
  return all;
}

Traits TraitsOf(const StackConfig& stack) {
  Traits all;
  for (const LayerConfig& layer : stack.list)
    for (const BranchConfig& b : layer.branches) all = Meet(all, TraitsOf(b));
  return all;
}

void CheckTraining(const StackConfig& stack, const TrainingData& data, ErrorList* errors) {
  ForEachBlock(stack, [&](const BranchConfig& b, const Traits& t) {
    const int64_t T = b.shape.max_tokens;
    const auto bad = [&](const auto&... what) { AddError(b, t, absl::StrCat(what...), errors); };
    if (t.max_tokens > 0 && T > t.max_tokens)
      bad("runs on sequences of at most ", t.max_tokens, " tokens, and train.seq gives it ", T);
    if (T % t.multiple_of != 0)
      bad("runs on sequences of a multiple of ", t.multiple_of, " tokens, and train.seq gives it ",
          T);
    if (data.packed && !t.packs)
      bad("cannot keep the documents of train.data apart; use data without documents");
    if (data.ahead && t.causal == Causal::kNever)
      bad("sees the next token, which it would be trained to tell; use `train.objective: masked` "
          "or "
          "classify");
  });
}

absl::Status CheckSequences(const StackConfig& stack, int64_t tokens, bool packed) {
  const Traits t = TraitsOf(stack);
  const auto bad = [&](const auto&... what) {
    return absl::InvalidArgumentError(absl::StrCat("this model ", what..., ", since ", t.why));
  };
  if (t.max_tokens > 0 && tokens > t.max_tokens)
    return bad("runs on sequences of at most ", t.max_tokens, " tokens, not of ", tokens);
  if (tokens % t.multiple_of != 0)
    return bad("runs on sequences of a multiple of ", t.multiple_of, " tokens, not of ", tokens);
  if (packed && !t.packs) return bad("cannot keep documents apart");
  return absl::OkStatus();
}

void CheckGeneration(const StackConfig& stack, ErrorList* errors) {
  ForEachBlock(stack, [&](const BranchConfig& b, const Traits& t) {
    if (t.causal == Causal::kNever) {
      AddError(b, t, "cannot generate: a token's result depends on later ones", errors);
    } else if (!t.decodes) {
      AddError(b, t, "cannot generate: it has no state to continue from", errors);
    }
  });
}

}  // namespace tessera
