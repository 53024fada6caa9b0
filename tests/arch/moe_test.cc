#include <gtest/gtest.h>

#include <cmath>

#include "arch/registry.h"

namespace tessera {
namespace {

absl::Status CheckMoe(const std::string& yaml) {
  auto config = FindBlock("moe")->make_config();
  const absl::Status read = ReadFields(yaml, *config);
  return read.ok() ? config->Check({.D = 64}) : read;
}

TEST(MoeConfig, NamesItsMistakes) {
  EXPECT_EQ(
      CheckMoe("{experts: 4, top_k: 5}").message(),
      "top_k = 5 exceeds experts = 4: a token uses an expert once; lower top_k or add experts");
  EXPECT_EQ(
      CheckMoe("{shared_gate: true}").message(),
      "text:1:2: shared_gate has no effect here: it needs shared experts, `shared: 1` or more; "
      "take it away");
  EXPECT_EQ(
      CheckMoe("{shared_d_ff: 32}").message(),
      "text:1:2: shared_d_ff has no effect here: it needs shared experts, `shared: 1` or more; "
      "take it away");
  const std::string one =
      " gives every chosen expert the weight 1, so the router would get no gradient from the task; "
      "use renormalise: false with scores: softmax_then_topk, or a larger top_k";
  EXPECT_EQ(CheckMoe("{top_k: 1, renormalise: true}").message(),
            "top_k = 1 with renormalise: true" + one);
  EXPECT_EQ(CheckMoe("{top_k: 1, scores: topk_then_softmax}").message(),
            "top_k = 1 with scores: topk_then_softmax" + one);
  EXPECT_FALSE(CheckMoe("{capacity_factor: 0}").ok());
  EXPECT_TRUE(CheckMoe("{capacity_factor: none}").ok());
}

// The value that is in force is printed, whether or not the key was written.
TEST(MoeConfig, RenormalisesWhereAWeightCanStillLearn) {
  const auto printed = [](const std::string& yaml) {
    auto config = FindBlock("moe")->make_config();
    EXPECT_TRUE(ReadFields(yaml, *config).ok());
    EXPECT_TRUE(config->Check({.D = 64}).ok()) << yaml;
    const std::string all = PrintFields(*config);
    return all.find("renormalise: true") != std::string::npos;
  };
  EXPECT_TRUE(printed("{}"));
  EXPECT_FALSE(printed("{top_k: 1}"));
  EXPECT_FALSE(printed("{top_k: 1, renormalise: false}"));
  EXPECT_FALSE(printed("{renormalise: false}"));
}

// One block and one pass through it.
class MoeTest : public ::testing::Test {
 protected:
  static constexpr int64_t kD = 16;

  void Build(const std::string& yaml) {
    auto config = FindBlock("moe")->make_config();
    ASSERT_TRUE(ReadFields(yaml, *config).ok());
    Parameters p(&parameters_, "moe");
    mixes_rows_ = config->TraitsAt({.D = kD}).mixes_rows;
    block_ = config->Build({.D = kD, .layers = 1}, p);
    parameters_.Initialise(1);
    // So large that experts differ and the router prefers some of them.
    for (const Parameter& q : parameters_.all())
      for (int64_t i = 0; i < q.var.value().elements(); ++i) q.var.data<float>()[i] *= 20;
  }
  std::vector<float> Run(const std::vector<float>& x, int64_t B, bool training) {
    Context ctx(Device::kCpu, &arena_);
    ctx.training = training;
    ctx.metrics = &metrics_;
    const int64_t T = static_cast<int64_t>(x.size()) / (B * kD);
    const Tensor in = ctx.New({B, T, kD}, DType::kF32);
    std::copy(x.begin(), x.end(), in.data<float>());
    const Tensor y = block_->Forward(ctx, Var(in), nullptr).value();
    return {y.data<float>(), y.data<float>() + y.elements()};
  }
  static std::vector<float> Input(int64_t tokens) {
    std::vector<float> x;
    for (int64_t i = 0; i < tokens * kD; ++i)
      x.push_back(static_cast<float>(Rng(9, "x").Normal(static_cast<uint64_t>(i))));
    return x;
  }

  Arena parameter_arena_{Arena::Backing::kMemory, 1 << 24},
      arena_{Arena::Backing::kMemory, 1 << 24};
  ParameterSet parameters_{&parameter_arena_, true};
  Metrics metrics_;
  std::unique_ptr<Block> block_;
  bool mixes_rows_ = false;
};

TEST_F(MoeTest, CapacityInTrainingNeverLetsALaterTokenDisplaceAnEarlierOne) {
  Build("{experts: 4, top_k: 1, d_ff: 8, capacity_factor: 0.5}");
  const int64_t T = 40, change = 23;
  std::vector<float> x = Input(T);
  const std::vector<float> before = Run(x, 1, true);
  EXPECT_GT(metrics_.at({"", "dropped"}).data<float>()[0], 0.2f);
  for (int64_t i = change * kD; i < T * kD; ++i) x[static_cast<size_t>(i)] *= -1;
  const std::vector<float> after = Run(x, 1, true);
  for (size_t i = 0; i < static_cast<size_t>(change * kD); ++i)
    ASSERT_NEAR(before[i], after[i], 1e-4) << "token " << i / kD;
}

TEST_F(MoeTest, CapacityIsForTraining) {
  Build("{experts: 4, top_k: 2, d_ff: 8, capacity_factor: 0.5}");
  EXPECT_TRUE(mixes_rows_);
  const std::vector<float> x = Input(30);
  const std::vector<float> whole = Run(x, 1, false), rows = Run(x, 2, false);
  EXPECT_EQ(metrics_.at({"", "dropped"}).data<float>()[0], 0);
  EXPECT_EQ(whole, rows);
  EXPECT_NE(whole, Run(x, 1, true));
}

TEST_F(MoeTest, CountsTheParametersThatATokenLeavesOut) {
  Build("{experts: 5, top_k: 2, d_ff: 8, shared: 1}");
  int64_t idle = 0;
  for (const Parameter& p : parameters_.all()) idle += p.idle;
  EXPECT_EQ(idle, 3 * 3 * 8 * kD);
  EXPECT_EQ(parameters_.elements(), 5 * kD + 6 * 3 * 8 * kD);
  EXPECT_FALSE(mixes_rows_);
}

}  // namespace
}  // namespace tessera
