#ifndef TESSERA_RESEARCH_CARD_H_
#define TESSERA_RESEARCH_CARD_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "config/fields.h"

// A paper's card, papers/<name>.yaml: what it claims, and how this engine checks it.

namespace tessera {

// A config, by name or path, with overrides: one side of a comparison.
struct Contestant {
  std::string config;
  std::vector<std::string> set;  // model.layers[1].attention.kv_heads=1
  void Fields(FieldList& f);
};

// What a config costs by the meta pass.
enum class Quantity : uint8_t {
  kParameters,
  kActiveParameters,
  kForwardFlops,      // per token at train.seq
  kTrainingFlops,     // likewise
  kActivationBytes,   // of a training pass over [train.batch, train.seq]
  kDecodeStateBytes,  // of one sequence of train.seq tokens
};

// The quantity of `of` over that of `over` is in [low, high].
struct CostCheck {
  Quantity quantity = Quantity::kParameters;
  Contestant of, over;
  double low = 0, high = 0;
  void Fields(FieldList& f);
};

// What the check gave when it was last run and written down.
struct CardResult {
  double value = 0;
  std::string commit, date, machine;
  void Fields(FieldList& f);
};

enum class CardState : uint8_t {
  kGreen,       // the check held
  kRed,         // it did not: the paper and this engine differ, which is kept and said
  kUnresolved,  // it was not run yet
  kOpen,        // there is no check, for the reason that `open` gives
};
const char* Name(CardState state);

struct Card {
  std::string name;  // of its file
  std::string title, arxiv, category, claim, source, scaled, open;
  int64_t year = 0;
  std::vector<std::string> blocks;
  std::optional<CostCheck> cost;
  std::optional<CardResult> result;

  void Fields(FieldList& f);
  CardState State() const;
};

// The cards that are built into the program, by name; an error names the file, line and column.
absl::StatusOr<std::vector<Card>> Cards();
absl::StatusOr<Card> ParseCard(const std::string& text, const std::string& name);

// The text of a card's file with this result in place of the one at its end.
std::string WithResult(const std::string& text, const CardResult& result);

// The files as they were built in.
struct CardFile {
  const char* name;
  const char* text;
};
std::span<const CardFile> CardFiles();

}  // namespace tessera

#endif  // TESSERA_RESEARCH_CARD_H_
