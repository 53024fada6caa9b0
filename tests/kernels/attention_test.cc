#include "kernels/attention/attention.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "arch/registry.h"

namespace tessera {
namespace {

// An attention block of a config, with all biases at zero until a test moves one.
class AttentionBiasTest : public ::testing::Test {
 protected:
  static constexpr int64_t kD = 16, kT = 12;

  void Build(const std::string& yaml) {
    auto config = FindBlock("attention")->make_config();
    ASSERT_TRUE(ReadFields(yaml, *config).ok());
    Parameters p(&parameters_, "attention");
    block_ = config->Build({.D = kD, .layers = 1}, p);
    parameters_.Initialise(1);
    for (const Parameter& q : parameters_.all())
      for (int64_t i = 0; i < q.var.value().elements(); ++i) q.var.data<float>()[i] *= 20;
  }
  const Parameter* Find(const std::string& name) const {
    for (const Parameter& q : parameters_.all())
      if (q.name == "attention." + name) return &q;
    return nullptr;
  }
  std::vector<float> Run() {
    Context ctx(Device::kCpu, &arena_);
    const Tensor x = ctx.New({1, kT, kD}, DType::kF32), position = ctx.New({1, kT}, DType::kI32);
    for (int64_t i = 0; i < kT * kD; ++i)
      x.data<float>()[i] = static_cast<float>(Rng(9, "x").Normal(static_cast<uint64_t>(i)));
    for (int64_t t = 0; t < kT; ++t) position.data<int32_t>()[t] = static_cast<int32_t>(t);
    ctx.position = position;
    const Tensor y = block_->Forward(ctx, Var(x), nullptr).value();
    return {y.data<float>(), y.data<float>() + y.elements()};
  }
  // The largest change of the output when the keys get a bias.
  float ChangeByKeyBias() {
    const std::vector<float> before = Run();
    const Parameter* bias = Find("k_bias");
    for (int64_t i = 0; i < bias->var.value().elements(); ++i)
      bias->var.data<float>()[i] = static_cast<float>(i % 3) - 1;
    const std::vector<float> after = Run();
    float most = 0;
    for (size_t i = 0; i < after.size(); ++i) most = std::max(most, std::abs(after[i] - before[i]));
    return most;
  }

  Arena parameter_arena_{Arena::Backing::kMemory, 1 << 20},
      arena_{Arena::Backing::kMemory, 1 << 20};
  ParameterSet parameters_{&parameter_arena_, true};
  std::unique_ptr<Block> block_;
};

TEST_F(AttentionBiasTest, OfTheKeysMovesTheOutputUnderRotation) {
  Build("{heads: 2, bias: true}");
  EXPECT_GT(ChangeByKeyBias(), 0.05f);
}

TEST_F(AttentionBiasTest, OfTheKeysMovesNothingWithoutRotation) {
  Build("{heads: 2, bias: true, rope: none}");
  EXPECT_LT(ChangeByKeyBias(), 1e-4f);
}

TEST_F(AttentionBiasTest, EveryProjectionHasItsOwn) {
  Build("{heads: 2, bias: true, gate: true}");
  for (const char* name : {"q_bias", "k_bias", "v_bias", "out_bias", "gate_bias"})
    EXPECT_NE(Find(name), nullptr) << name;
}

// So a checkpoint without a bias of the keys, or of the gate, has what the config asks for.
TEST_F(AttentionBiasTest, QvoLeavesOutTheKeysAndTheGates) {
  Build("{heads: 2, bias: qvo, gate: true}");
  for (const char* name : {"q_bias", "v_bias", "out_bias"}) EXPECT_NE(Find(name), nullptr) << name;
  for (const char* name : {"k_bias", "gate_bias"}) EXPECT_EQ(Find(name), nullptr) << name;
}

// Every pair is counted, and in a cost none that is not there.
TEST(AttentionCost, IsThatOfTheVisiblePairs) {
  for (const int64_t T : {1, 2, 9})
    for (const int64_t L : {0, 1, 5, 20})
      for (const int64_t window : {0, 1, 3, 7, 40})
        for (const int64_t after : {0, 1, 6, 8, 9, 30, -1}) {
          int64_t pairs = 0;
          for (int64_t t = 0; t < T; ++t)
            for (int64_t j = 0; j < L + T; ++j) {
              const int64_t ahead = j - L - t;
              pairs += (window == 0 || -ahead < window) && (after < 0 || ahead <= after) ? 1 : 0;
            }
          const AttentionArgs<float> args{.B = 2,
                                          .T = T,
                                          .H = 6,
                                          .Hkv = 3,
                                          .K = 5,
                                          .V = 7,
                                          .L = L,
                                          .window = window,
                                          .after = after,
                                          .scale = 1};
          EXPECT_EQ(args.cost().flops, 2 * 6 * pairs * 2 * (5 + 7)) << T << L << window << after;
          EXPECT_EQ(args.grad_cost().flops, 2 * 6 * pairs * 2 * (3 * 5 + 2 * 7));
          const int64_t seen = T + (window == 0 ? L : std::min(window - 1, L));
          EXPECT_EQ(args.cost().bytes, 4 * 2 * (5 + 7) * (T * 6 + seen * 3));
        }
}

}  // namespace
}  // namespace tessera
