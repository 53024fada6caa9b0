#include "research/card.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "config/map_reader.h"

namespace tessera {

void Contestant::Fields(FieldList& f) {
  f.Add("config", config, "a ready config, or a file");
  f.Add("set", set, "overrides, as on the command line");
}

void CostCheck::Fields(FieldList& f) {
  f.Add("quantity", quantity,
        {{"parameters", Quantity::kParameters},
         {"active_parameters", Quantity::kActiveParameters},
         {"forward_flops", Quantity::kForwardFlops},
         {"training_flops", Quantity::kTrainingFlops},
         {"activation_bytes", Quantity::kActivationBytes},
         {"decode_state_bytes", Quantity::kDecodeStateBytes}},
        "what is compared");
  f.Add("of", of, "the contestant");
  f.Add("over", over, "what it is divided by");
  f.Add("low", low, AtLeast(0), "the least that the claim allows");
  f.Add("high", high, AtLeast(0), "the most");
}

void CardResult::Fields(FieldList& f) {
  f.Add("value", value, AnyNumber(), "what was measured");
  f.Add("commit", commit, "of the program that measured");
  f.Add("date", date, "when");
  f.Add("machine", machine, "where");
}

void Card::Fields(FieldList& f) {
  f.Add("title", title, "the system's name");
  f.Add("arxiv", arxiv, "number of the paper");
  f.Add("year", year, Between(1950, 2100), "of the paper");
  f.Add("category", category, "attention/sharing, ssm, ...");
  f.Add("blocks", blocks, "what it is written with here");
  f.Add("claim", claim, "one sentence");
  f.Add("source", source, "where the paper makes it");
  f.Add("scaled", scaled, "what the check makes smaller than the paper had it");
  f.Add("open", open, "why there is no check");
  f.Add("cost", cost, "a check by the meta pass: nothing runs");
  f.Add("result", result, "of the check, written by `tessera papers check --write`");
}

CardState Card::State() const {
  if (!cost.has_value()) return CardState::kOpen;
  if (!result.has_value()) return CardState::kUnresolved;
  const bool holds = result->value >= cost->low && result->value <= cost->high;
  return holds ? CardState::kGreen : CardState::kRed;
}

const char* Name(CardState state) {
  constexpr const char* kNames[] = {"green", "red", "unresolved", "open"};
  return kNames[static_cast<int>(state)];
}

absl::StatusOr<Card> ParseCard(const std::string& text, const std::string& name) {
  const std::string file = absl::StrCat("papers/", name, ".yaml");
  absl::StatusOr<ConfigNode> node = ParseYaml(text, file);
  if (!node.ok()) return node.status();
  Card card;
  card.name = name;
  FieldList fields;
  card.Fields(fields);
  ErrorList errors;
  ReadMap(*node, fields, "card", &errors);
  const auto want = [&](bool holds, const char* what) {
    if (!holds) errors.Add(node->Error(what));
  };
  want(!card.title.empty() && !card.claim.empty() && !card.category.empty(),
       "a card has a title, a category and a claim");
  want(card.cost.has_value() != !card.open.empty(),
       "a card has a check, or says under `open` why it has none");
  if (card.cost.has_value()) want(card.cost->low <= card.cost->high, "`low` is above `high`");
  if (absl::Status status = errors.ToStatus(); !status.ok()) return status;
  return card;
}

absl::StatusOr<std::vector<Card>> Cards() {
  std::vector<Card> cards;
  for (const CardFile& file : CardFiles()) {
    absl::StatusOr<Card> card = ParseCard(file.text, file.name);
    if (!card.ok()) return card.status();
    cards.push_back(*std::move(card));
  }
  return cards;
}

std::string WithResult(const std::string& text, const CardResult& result) {
  std::string kept;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (absl::StartsWith(line, "result:")) break;
    absl::StrAppend(&kept, line, "\n");
  }
  while (kept.size() > 1 && kept[kept.size() - 2] == '\n') kept.pop_back();
  CardResult copy = result;
  std::string fields;
  for (absl::string_view line : absl::StrSplit(PrintFields(copy), '\n', absl::SkipEmpty()))
    absl::StrAppend(&fields, "  ", line, "\n");
  return absl::StrCat(kept, "result:\n", fields);
}

}  // namespace tessera
