#include "ops/rope_scaling.h"

#include <gtest/gtest.h>

#include <map>
#include <numbers>

namespace tessera {
namespace {

// The values were computed apart from this code, from the formulas of the papers.
void ExpectFrequencies(const RopeFrequencies& f, const std::map<size_t, double>& want) {
  for (const auto& [i, theta] : want) {
    ASSERT_LT(i, f.radians.size());
    EXPECT_NEAR(f.radians[i], theta, 1e-12 * theta) << "pair " << i;
  }
}

TEST(RopeScaling, None) {
  const RopeFrequencies f = ScaledRopeFrequencies({}, 10000, 64);
  EXPECT_EQ(f.radians.size(), 32u);
  EXPECT_EQ(f.attention_factor, 1);
  ExpectFrequencies(f, {{0, 1.0}, {1, 0.7498942093324559}, {31, 0.0001333521432163324}});
}

TEST(RopeScaling, LinearDividesEveryFrequency) {
  const RopeFrequencies f =
      ScaledRopeFrequencies({.type = RopeScalingType::kLinear, .factor = 4}, 10000, 64);
  EXPECT_EQ(f.attention_factor, 1);
  ExpectFrequencies(f, {{0, 0.25}, {1, 0.18747355233311397}, {31, 3.33380358040831e-05}});
}

TEST(RopeScaling, NtkKeepsTheFirstAndDividesTheLast) {
  const RopeFrequencies f =
      ScaledRopeFrequencies({.type = RopeScalingType::kNtk, .factor = 8}, 10000, 64);
  EXPECT_EQ(f.attention_factor, 1);
  ExpectFrequencies(f, {{0, 1.0}, {8, 0.05847153827988435}, {31, 0.0001333521432163324 / 8}});
}

TEST(RopeScaling, Yarn) {
  RopeScaling s{.type = RopeScalingType::kYarn, .factor = 16, .original_length_tok = 4096};
  const RopeFrequencies f = ScaledRopeFrequencies(s, 10000, 64);
  EXPECT_NEAR(f.attention_factor, 1.2772588722239782, 1e-15);
  ExpectFrequencies(f, {{8, 0.1},
                        {16, 0.005673076923076923},
                        {20, 0.0008817889629315672},
                        {31, 8.334508951020775e-06}});
  s.attention_factor = 1;
  EXPECT_EQ(ScaledRopeFrequencies(s, 10000, 64).attention_factor, 1);
}

TEST(RopeScaling, Llama3) {
  const RopeFrequencies f = ScaledRopeFrequencies(
      {.type = RopeScalingType::kLlama3, .factor = 8, .original_length_tok = 8192}, 500000, 128);
  EXPECT_EQ(f.attention_factor, 1);
  ExpectFrequencies(f, {{16, 0.03760603093086393},
                        {32, 0.0005248461609929547},
                        {40, 3.428102195952591e-05},
                        {63, 3.068925988914511e-07}});
}

// The two parts of a frequency hold it to 48 bits: at a million tokens the angle is right to 1e-6.
TEST(RopeScaling, RotationHoldsTheFrequency) {
  const RopeFrequencies f = ScaledRopeFrequencies({}, 10000, 64);
  const RopeRotation r = MakeRotation(f, RopePairing::kHalves);
  EXPECT_EQ(r.R, 64);
  for (size_t i = 0; i < 32; ++i) {
    const double turns = static_cast<double>(r.high[i]) + r.low[i];
    EXPECT_NEAR(1e6 * 2 * std::numbers::pi * turns, 1e6 * f.radians[i], 1e-6) << "pair " << i;
  }
}

}  // namespace
}  // namespace tessera
