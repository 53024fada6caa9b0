#include "generate/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "core/rng.h"

namespace tessera {
namespace {

// Probabilities 0.4, 0.3, 0.2, 0.06, 0.04 at temperature 1, out of order.
const std::vector<double> kProbability = {0.06, 0.4, 0.2, 0.04, 0.3};

std::vector<float> Logits() {
  std::vector<float> logits;
  for (const double p : kProbability) logits.push_back(static_cast<float>(std::log(p)) + 3);
  return logits;
}

int32_t Draw(const std::vector<float>& logits, const Sampling& sampling, uint64_t index) {
  return Sampler(sampling).Draw(logits, index).value();
}

std::map<int32_t, double> Shares(const Sampling& sampling) {
  constexpr int kDraws = 40000;
  std::map<int32_t, double> shares;
  for (uint64_t i = 0; i < kDraws; ++i) shares[Draw(Logits(), sampling, i)] += 1.0 / kDraws;
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
  EXPECT_EQ(Draw(Logits(), {.temperature = 0}, 5), 1);
  EXPECT_EQ(Draw(std::vector<float>{1, 2, 2}, {.temperature = 0}, 0), 1);
}

TEST(Sampler, IsAFunctionOfSeedAndIndex) {
  int same = 0;
  for (uint64_t i = 0; i < 100; ++i) {
    EXPECT_EQ(Draw(Logits(), {.seed = 3}, i), Draw(Logits(), {.seed = 3}, i));
    same += Draw(Logits(), {.seed = 3}, i) == Draw(Logits(), {.seed = 4}, i);
  }
  EXPECT_LT(same, 80);
}

// The definition, by sorting all that there is.
int32_t BySorting(const std::vector<float>& logits, const Sampling& s, uint64_t index) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto logit = [&](int32_t id) { return logits[static_cast<size_t>(id)]; };
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return logit(a) > logit(b); });
  if (s.temperature == 0) return order[0];
  size_t keep = order.size();
  if (s.top_k > 0) keep = std::min(keep, static_cast<size_t>(s.top_k));
  std::vector<double> p(keep);
  for (size_t i = 0; i < keep; ++i)
    p[i] = std::exp((static_cast<double>(logit(order[i])) - logit(order[0])) / s.temperature);
  const auto sum = [&] { return std::accumulate(p.begin(), p.begin() + long(keep), 0.0); };
  if (s.top_p < 1) {
    const double all = sum();
    double held = 0;
    for (size_t i = 0; i < keep; ++i)
      if ((held += p[i] / all) >= s.top_p) keep = i + 1;
  }
  while (keep > 1 && p[keep - 1] < s.min_p * p[0]) --keep;
  double left = Rng(s.seed, "sample").Uniform(index) * sum();
  for (size_t i = 0; i + 1 < keep; ++i) {
    if (left < p[i]) return order[i];
    left -= p[i];
  }
  return order[keep - 1];
}

TEST(Sampler, DrawsWhatSortingDraws) {
  const std::vector<Sampling> settings = {
      {.temperature = 0},
      {.temperature = 1},
      {.temperature = 0.3, .seed = 5},
      {.temperature = 3, .top_k = 1},
      {.temperature = 1, .top_k = 40},
      {.temperature = 1, .top_k = 100000},
      {.temperature = 1, .top_p = 0.9003},
      {.temperature = 2, .top_p = 0.05007},
      {.temperature = 1, .min_p = 0.05},
      {.temperature = 1, .min_p = 1},
      {.temperature = 0.8, .top_k = 50, .top_p = 0.9003, .min_p = 0.02, .seed = 9}};
  for (const int64_t vocab : {1, 2, 31, 32, 33, 256, 5000})
    for (uint64_t kind = 0; kind < 4; ++kind) {
      const Rng rng(kind, "logits");
      std::vector<float> logits(static_cast<size_t>(vocab));
      for (size_t i = 0; i < logits.size(); ++i) {
        logits[i] = static_cast<float>(3 * rng.Normal(i));
        if (kind == 1) logits[i] = std::round(logits[i]);  // many ties
        if (kind == 2) logits[i] = 0.25f;  // nothing else; no top-p here is a multiple of 1/vocab
        if (kind == 3 && i % 3 == 1) logits[i] = -std::numeric_limits<float>::infinity();
      }
      for (const Sampling& s : settings) {
        Sampler sampler(s);
        for (uint64_t index = 0; index < 40; ++index)
          ASSERT_EQ(sampler.Draw(logits, index).value(), BySorting(logits, s, index))
              << "vocabulary " << vocab << ", logits " << kind << ", draw " << index
              << ", temperature " << s.temperature << ", top-k " << s.top_k << ", top-p " << s.top_p
              << ", min-p " << s.min_p;
      }
    }
}

TEST(Sampler, LogitsThatAreNotFiniteAreAnError) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN(),
                  kInfinity = std::numeric_limits<float>::infinity();
  for (const double temperature : {0.0, 1.0}) {
    Sampler sampler({.temperature = temperature});
    const auto error = [&](const std::vector<float>& logits) {
      return std::string(sampler.Draw(logits, 0).status().message());
    };
    EXPECT_EQ(error({1, kNan, 2}),
              "the logit of token 1 is not a number; the model's weights or its activations have "
              "overflowed");
    EXPECT_EQ(error({1, 2, kInfinity}),
              "the logit of token 2 is infinite; the model's weights or its activations have "
              "overflowed");
    EXPECT_EQ(error({-kInfinity, -kInfinity}), "none of the 2 logits is finite");
    EXPECT_EQ(error({}), "none of the 0 logits is finite");
    EXPECT_EQ(sampler.Draw(std::vector<float>{-kInfinity, 1}, 0).value(), 1);
  }
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
