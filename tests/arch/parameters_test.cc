#include "arch/parameters.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "arch/registry.h"
#include "ops/product.h"
#include "tests/check_fails.h"

namespace tessera {
namespace {

class ParametersTest : public ::testing::Test {
 protected:
  const Parameter& Find(const std::string& name) const {
    for (const Parameter& p : set_.all())
      if (p.name == name) return p;
    ADD_FAILURE() << "no parameter " << name;
    return set_.all()[0];
  }
  Tensor Numbers(Context& ctx, const char* name, const Shape& shape) {
    const Tensor t = ctx.New(shape, DType::kF32);
    for (int64_t i = 0; i < t.elements(); ++i)
      t.data<float>()[i] = static_cast<float>(Rng(3, name).Normal(static_cast<uint64_t>(i)));
    return t;
  }

  Arena arena_{Arena::Backing::kMemory, 1 << 22}, memory_{Arena::Backing::kMemory, 1 << 22};
  ParameterSet set_{&arena_, true};
  Parameters p_{&set_, "block"};
};

TEST_F(ParametersTest, PartsStartInTheirOwnWaysFromOneStream) {
  p_.Linear("w", {{"a", 2, Normal(0.5)}, {"b", 3, Symmetric(0.1)}, {"c", 1, Constant(7)}}, 4);
  set_.Initialise(9);
  const Parameter& w = Find("block.w");
  EXPECT_TRUE(w.shape == Shape({6, 4}));
  const Rng rng(9, "block.w");
  for (int64_t i = 0; i < 24; ++i) {
    const auto at = static_cast<uint64_t>(i);
    const double want = i < 8 ? 0.5 * rng.Normal(at) : i < 20 ? 0.1 * (2 * rng.Uniform(at) - 1) : 7;
    EXPECT_EQ(w.var.data<float>()[i], static_cast<float>(want)) << i;
  }
}

// The values that runs of before began with: Glorot's bound for each part of the stacked weight.
TEST_F(ParametersTest, GlaStartsWithinGlorotsBounds) {
  const int64_t D = 32, key = 16, value = 32, rank = 4;
  auto config = FindBlock("gla")->make_config();
  ASSERT_TRUE(ReadFields("{heads: 2, gate_rank: 4}", *config).ok());
  const auto block = config->Build({.D = D, .layers = 1}, p_);
  set_.Initialise(5);
  const Parameter& w = Find("block.in_proj");
  const int64_t outs[] = {key, key, value, value, rank};
  int64_t i = 0;
  for (const int64_t out : outs)
    for (const int64_t end = i + out * D; i < end; ++i) {
      const double bound = std::exp2(-2.5) * std::sqrt(6 / static_cast<double>(D + out));
      const double u = Rng(5, "block.in_proj").Uniform(static_cast<uint64_t>(i));
      ASSERT_EQ(w.var.data<float>()[i], static_cast<float>(bound * (2 * u - 1))) << i;
    }
  EXPECT_EQ(i, w.shape.elements());
}

TEST_F(ParametersTest, PartsAreAllRows) {
  testing::ExpectCheckFails(
      [&] {
        p_.Add({.name = "w",
                .shape = {5, 2},
                .role = Role::kMatrix,
                .decay = Decay::kYes,
                .parts = {{.rows = 2}, {.rows = 2}}});
      },
      "the parts of block.w [5,2] have 4 rows");
}

TEST_F(ParametersTest, AProjectionIsAProductWithItsWeightAndBias) {
  const Projection w = p_.Linear("w", {{"a", 2}, {"b", 3}}, 4, Parameters::Biased::kYes);
  EXPECT_EQ(w.widths, (std::vector<int64_t>{2, 3}));
  set_.Initialise(1);
  const Parameter &weight = Find("block.w"), &bias = Find("block.w_bias");
  float* const shift = bias.var.data<float>();
  ASSERT_NE(shift, nullptr);
  for (int64_t i = 0; i < 5; ++i) shift[i] = static_cast<float>(i);
  EXPECT_EQ(weight.role, Role::kMatrix);
  EXPECT_EQ(weight.decay, Decay::kYes);
  EXPECT_EQ(bias.role, Role::kVector);
  EXPECT_EQ(bias.decay, Decay::kNo);
  Context ctx(Device::kCpu, &memory_);
  const Var x(Numbers(ctx, "x", {1, 3, 4}));
  const Var y = Linear(ctx, x, w), want = Linear(ctx, x, weight.var, bias.var);
  for (int64_t i = 0; i < 15; ++i) EXPECT_EQ(y.data<float>()[i], want.data<float>()[i]);
}

TEST_F(ParametersTest, WhatIsFrozenHasNoGradientAndLetsThemThrough) {
  p_.Add({.name = "w",
          .shape = {5, 4},
          .role = Role::kMatrix,
          .decay = Decay::kYes,
          .parts = {{.rows = 5}},
          .trainable = false});
  const Var bias = p_.Bias("b", 5);
  set_.Initialise(1);
  const Parameter& w = Find("block.w");
  EXPECT_EQ(w.var.grad(), nullptr);
  set_.ForgetGradients();
  Context ctx(Device::kCpu, &memory_);
  ctx.SetRecording(true);
  const Var x = Leaf(Numbers(ctx, "x", {1, 3, 4}));
  const Var y = Linear(ctx, x, Projection{w.var, bias, {5}});
  ctx.Backward(y, Numbers(ctx, "dy", {1, 3, 5}));
  EXPECT_TRUE(x.grad()->started);
  EXPECT_TRUE(bias.grad()->started);
}

TEST_F(ParametersTest, BuffersAreKeptAndNotTrained) {
  const Var counts = p_.Buffer("counts", {3}, Constant(2));
  p_.Gain("gain", 4);
  set_.Initialise(1);
  EXPECT_EQ(counts.grad(), nullptr);
  EXPECT_EQ(counts.data<float>()[2], 2);
  EXPECT_EQ(set_.elements(), 4) << "they are no parameters";
  EXPECT_EQ(set_.all().size(), 2u) << "but what is saved has them";
  EXPECT_EQ(Find("block.counts").role, Role::kBuffer);
  set_.ForgetGradients();
}

// An optimiser that treats matrices apart finds them by their role.
TEST_F(ParametersTest, BlocksGiveTheirParametersRoles) {
  auto config = FindBlock("moe")->make_config();
  ASSERT_TRUE(ReadFields("{experts: 2, d_ff: 8, shared: 1}", *config).ok());
  const auto block = config->Build({.D = 16, .layers = 1}, p_);
  EXPECT_EQ(Find("block.router").role, Role::kMatrix);
  EXPECT_EQ(Find("block.up").role, Role::kExpert);
  EXPECT_EQ(Find("block.down").role, Role::kExpert);
  EXPECT_EQ(Find("block.shared.up").role, Role::kMatrix);
}

}  // namespace
}  // namespace tessera
