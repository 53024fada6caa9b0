#include "generate/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

namespace tessera {
namespace {

// Probabilities 0.4, 0.3, 0.2, 0.06, 0.04 at temperature 1, out of order.
const std::vector<double> kProbability = {0.06, 0.4, 0.2, 0.04, 0.3};

std::vector<float> Logits() {
  std::vector<float> logits;
  for (const double p : kProbability) logits.push_back(static_cast<float>(std::log(p)) + 3);
  return logits;
}

std::map<int32_t, double> Shares(const Sampling& sampling) {
  constexpr int kDraws = 40000;
  std::map<int32_t, double> shares;
  for (uint64_t i = 0; i < kDraws; ++i) shares[Sample(Logits(), sampling, i)] += 1.0 / kDraws;
  return shares;
}

// The draws fall on `kept` alone, by their probabilities to the power of 1 / temperature.
void ExpectShares(const Sampling& sampling, const std::vector<int32_t>& kept) {
  const auto shares = Shares(sampling);
  double total = 0;
  for (const int32_t id : kept)
    total += std::pow(kProbability[static_cast<size_t>(id)], 1 / sampling.temperature);
  EXPECT_EQ(shares.size(), kept.size());
  for (const int32_t id : kept) {
    const double p =
        std::pow(kProbability[static_cast<size_t>(id)], 1 / sampling.temperature) / total;
    ASSERT_TRUE(shares.contains(id)) << id;
    EXPECT_NEAR(shares.at(id), p, 4.5 * std::sqrt(p * (1 - p) / 40000) + 1e-9) << id;
  }
}

TEST(Sampler, DrawsByTheSoftmaxOfTheLogits) {
  ExpectShares({.temperature = 1}, {0, 1, 2, 3, 4});
  ExpectShares({.temperature = 0.5}, {0, 1, 2, 3, 4});
  ExpectShares({.temperature = 2}, {0, 1, 2, 3, 4});
}

TEST(Sampler, TopKKeepsTheMostLikely) {
  ExpectShares({.temperature = 1, .top_k = 3}, {1, 2, 4});
  ExpectShares({.temperature = 1, .top_k = 100}, {0, 1, 2, 3, 4});
}

TEST(Sampler, TopPKeepsTheFewestThatHoldIt) {
  ExpectShares({.temperature = 1, .top_p = 0.65}, {1, 4});
  ExpectShares({.temperature = 1, .top_p = 0.75}, {1, 2, 4});
  ExpectShares({.temperature = 1, .top_p = 1e-9}, {1});
}

TEST(Sampler, MinPIsRelativeToTheBest) {
  ExpectShares({.temperature = 1, .min_p = 0.4}, {1, 2, 4});
  ExpectShares({.temperature = 1, .min_p = 0.12}, {0, 1, 2, 4});
}

TEST(Sampler, FiltersApplyOneAfterAnother) {
  // Of the three best, 0.65 of what they hold, 0.9, is the first two.
  ExpectShares({.temperature = 1, .top_k = 3, .top_p = 0.65}, {1, 4});
  ExpectShares({.temperature = 1, .top_k = 4, .top_p = 0.99, .min_p = 0.4}, {1, 2, 4});
}

TEST(Sampler, ZeroTemperatureTakesTheBestAndTheFirstOfEquals) {
  EXPECT_EQ(Sample(Logits(), {.temperature = 0}, 5), 1);
  EXPECT_EQ(Sample(std::vector<float>{1, 2, 2}, {.temperature = 0}, 0), 1);
}

TEST(Sampler, IsAFunctionOfSeedAndIndex) {
  int same = 0;
  for (uint64_t i = 0; i < 100; ++i) {
    EXPECT_EQ(Sample(Logits(), {.seed = 3}, i), Sample(Logits(), {.seed = 3}, i));
    same += Sample(Logits(), {.seed = 3}, i) == Sample(Logits(), {.seed = 4}, i);
  }
  EXPECT_LT(same, 80);
}

TEST(Sampler, SettingsOutOfRangeAreMistakes) {
  EXPECT_EQ(Sampling{.temperature = -1}.Check().message(),
            "temperature -1: expected a finite number >= 0");
  EXPECT_EQ(Sampling{.top_k = -1}.Check().message(), "top-k -1: expected a count, or 0 for all");
  EXPECT_EQ(Sampling{.top_p = 0}.Check().message(), "top-p 0: expected a probability in (0, 1]");
  EXPECT_EQ(Sampling{.min_p = 2}.Check().message(), "min-p 2: expected a ratio in [0, 1]");
}

}  // namespace
}  // namespace tessera
