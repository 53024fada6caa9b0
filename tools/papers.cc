#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/limits.h"
#include "io/files.h"
#include "research/check.h"
#include "tools/command.h"

namespace tessera {
namespace {

struct Options {
  std::string action = "list", category, state, write;
  std::vector<std::string> names;
  bool json = false, all = false;
};

nlohmann::json JsonOf(const Card& c) {
  nlohmann::json json = {{"card", c.name},     {"title", c.title},   {"category", c.category},
                         {"arxiv", c.arxiv},   {"year", c.year},     {"claim", c.claim},
                         {"source", c.source}, {"blocks", c.blocks}, {"state", Name(c.State())}};
  if (!c.open.empty()) json["open"] = c.open;
  if (!c.scaled.empty()) json["scaled"] = c.scaled;
  if (c.cost.has_value()) json["band"] = {c.cost->low, c.cost->high};
  if (c.result.has_value())
    json["result"] = {{"value", c.result->value},
                      {"commit", c.result->commit},
                      {"date", c.result->date},
                      {"machine", c.result->machine}};
  return json;
}

void Show(const Card& c) {
  std::printf("%s (arXiv:%s, %ld), %s\n", c.title.c_str(), c.arxiv.c_str(),
              static_cast<long>(c.year), c.category.c_str());
  if (!c.blocks.empty()) std::printf("  blocks   %s\n", absl::StrJoin(c.blocks, ", ").c_str());
  std::printf("  claim    %s\n", c.claim.c_str());
  if (!c.source.empty()) std::printf("  source   %s\n", c.source.c_str());
  if (c.cost.has_value()) {
    const auto text = [](const Contestant& one) {
      return absl::StrCat(one.config, one.set.empty() ? "" : " ", absl::StrJoin(one.set, " "));
    };
    CostCheck check = *c.cost;
    std::printf("  check    cost of  %s\n               over %s\n           in [%g, %g]\n",
                text(check.of).c_str(), text(check.over).c_str(), check.low, check.high);
  }
  if (!c.scaled.empty()) std::printf("  scaled   %s\n", c.scaled.c_str());
  if (!c.open.empty()) std::printf("  open     %s\n", c.open.c_str());
  std::printf("  state    %s", Name(c.State()));
  if (c.result.has_value())
    std::printf(": %g (%s, %s, %s)", c.result->value, c.result->date.c_str(),
                c.result->commit.c_str(), c.result->machine.c_str());
  std::printf("\n");
}

int List(const std::vector<Card>& cards, const Options& o) {
  nlohmann::json out = nlohmann::json::array();
  for (const Card& c : cards) {
    if (c.category.compare(0, o.category.size(), o.category) != 0) continue;
    if (!o.state.empty() && o.state != Name(c.State())) continue;
    out.push_back(JsonOf(c));
    if (!o.json)
      std::printf("%-18s %-28s %-24s %-10s %s\n", c.name.c_str(), c.title.c_str(),
                  c.category.c_str(), Name(c.State()), absl::StrJoin(c.blocks, ", ").c_str());
  }
  if (o.json) std::printf("%s\n", out.dump(2).c_str());
  return kDone;
}

// The cards of these names, or all; a name that no card has is a mistake.
absl::StatusOr<std::vector<Card>> Chosen(const std::vector<Card>& cards, const Options& o) {
  if (o.all) return cards;
  if (o.names.empty()) return absl::InvalidArgumentError("name cards, or say --all");
  std::vector<Card> chosen;
  for (const std::string& name : o.names) {
    std::vector<std::string> known;
    for (const Card& c : cards) {
      known.push_back(c.name);
      if (c.name == name) chosen.push_back(c);
    }
    if (chosen.empty() || chosen.back().name != name)
      return absl::InvalidArgumentError(UnknownName("card", name, "this build", known));
  }
  return chosen;
}

std::string Today() {
  const std::time_t now = std::time(nullptr);
  char text[16];
  std::strftime(text, sizeof text, "%Y-%m-%d", std::gmtime(&now));
  return text;
}

absl::Status WriteResult(const Card& card, const std::string& folder) {
  const std::string path = absl::StrCat(folder, "/", card.name, ".yaml");
  const absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return text.status();
  return AtomicWrite(path, WithResult(*text, *card.result));
}

int Check(std::vector<Card> cards, const Options& o) {
  bool red = false;
  nlohmann::json out = nlohmann::json::array();
  for (Card& c : cards) {
    if (c.cost.has_value()) {
      const absl::StatusOr<double> value = Measure(*c.cost);
      if (!value.ok())
        return Fail(absl::InvalidArgumentError(
                        absl::StrCat("papers/", c.name, ".yaml: ", value.status().message())),
                    kFailed);
      c.result = CardResult{
          .value = *value,
          .commit = CommitText(),
          .date = Today(),
          .machine = absl::StrCat(UsableProcessors(), " processors, ", Name(ActiveIsa()))};
      if (!o.write.empty())
        if (absl::Status status = WriteResult(c, o.write); !status.ok())
          return Fail(status, kFailed);
    }
    red = red || c.State() == CardState::kRed;
    out.push_back(JsonOf(c));
    if (o.json) continue;
    if (c.cost.has_value())
      std::printf("%-18s %-10s %-10g in [%g, %g]\n", c.name.c_str(), Name(c.State()),
                  c.result->value, c.cost->low, c.cost->high);
    else
      std::printf("%-18s %-10s %s\n", c.name.c_str(), Name(c.State()), c.open.c_str());
  }
  if (o.json) std::printf("%s\n", out.dump(2).c_str());
  return red ? kFailed : kDone;
}

int Papers(const Options& o) {
  const absl::StatusOr<std::vector<Card>> cards = Cards();
  if (!cards.ok()) return Fail(cards.status(), kFailed);
  if (o.action == "list") return List(*cards, o);
  const absl::StatusOr<std::vector<Card>> chosen = Chosen(*cards, o);
  if (!chosen.ok()) return Fail(chosen.status(), kMistake);
  if (o.action == "check") return Check(*chosen, o);
  for (const Card& c : *chosen) Show(c);
  return kDone;
}

}  // namespace

void AddPapers(CLI::App* app, int* code) {
  auto o = std::make_shared<Options>();
  CLI::App* c = app->add_subcommand("papers", "the papers' claims, and whether they hold here");
  c->add_option("action", o->action, "list, show or check")
      ->check(CLI::IsMember({"list", "show", "check"}));
  c->add_option("names", o->names, "cards");
  c->add_flag("--all", o->all, "every card");
  c->add_option("--category", o->category, "list these only: attention, ssm, ...");
  c->add_option("--state", o->state, "list these only")
      ->check(CLI::IsMember({"green", "red", "unresolved", "open"}));
  c->add_option("--write", o->write, "write results into the cards of this folder");
  c->add_flag("--json", o->json, "for scripts");
  c->footer(
      "A check that does not hold ends with code 1.\n"
      "Examples:\n  tessera papers\n  tessera papers list --state red\n"
      "  tessera papers show mqa\n  tessera papers check --all --write papers");
  c->callback([=] { *code = Papers(*o); });
}

}  // namespace tessera
