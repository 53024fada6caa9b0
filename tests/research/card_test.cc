#include "research/card.h"

#include <gtest/gtest.h>

#include <set>

#include "arch/registry.h"
#include "research/check.h"

namespace tessera {
namespace {

TEST(Cards, AreAllReadAndNameWhatThereIs) {
  const absl::StatusOr<std::vector<Card>> cards = Cards();
  ASSERT_TRUE(cards.ok()) << cards.status();
  EXPECT_GE(cards->size(), 15u);
  for (const Card& c : *cards)
    for (const std::string& block : c.blocks)
      EXPECT_NE(FindBlock(block), nullptr) << c.name << " is written with " << block;
}

// What a card says was measured is measured again, to the last bit that is written down.
TEST(Cards, MeasureWhatTheySay) {
  const absl::StatusOr<std::vector<Card>> cards = Cards();
  ASSERT_TRUE(cards.ok()) << cards.status();
  for (const Card& c : *cards) {
    if (!c.cost.has_value()) continue;
    const absl::StatusOr<double> value = Measure(*c.cost);
    ASSERT_TRUE(value.ok()) << c.name << ": " << value.status();
    ASSERT_TRUE(c.result.has_value()) << c.name << " was not checked: papers check --write papers";
    EXPECT_DOUBLE_EQ(*value, c.result->value) << c.name;
  }
}

constexpr char kText[] =
    "title: A title\ncategory: ssm\nclaim: It is so.\n"
    "cost: {of: {config: gla}, over: {config: gla}, low: 0.5, high: 1}\n";

TEST(Cards, HaveTheStateOfTheirResult) {
  absl::StatusOr<Card> card = ParseCard(kText, "some");
  ASSERT_TRUE(card.ok()) << card.status();
  EXPECT_EQ(card->State(), CardState::kUnresolved);
  const CardResult inside{.value = 1, .commit = "abc", .date = "2026-01-31", .machine = "here"};
  const std::string once = WithResult(kText, inside);
  card = ParseCard(once, "some");
  ASSERT_TRUE(card.ok()) << card.status();
  EXPECT_EQ(card->State(), CardState::kGreen);
  EXPECT_EQ(card->result->machine, "here");
  CardResult outside = inside;
  outside.value = 1.25;
  card = ParseCard(WithResult(once, outside), "some");
  ASSERT_TRUE(card.ok()) << card.status();
  EXPECT_EQ(card->State(), CardState::kRed);
  EXPECT_EQ(WithResult(WithResult(once, outside), inside), once);
}

TEST(Cards, HaveACheckOrAReason) {
  const absl::StatusOr<Card> neither =
      ParseCard("title: A title\ncategory: ssm\nclaim: It is so.\n", "some");
  EXPECT_EQ(neither.status().message(),
            "papers/some.yaml:1:1: a card has a check, or says under `open` why it has none");
  const absl::StatusOr<Card> unknown =
      ParseCard("title: A title\ncategory: ssm\nclaims: It is so.\nopen: yet\n", "some");
  EXPECT_NE(unknown.status().message().find("papers/some.yaml:3:1"), std::string::npos)
      << unknown.status();
}

}  // namespace
}  // namespace tessera
