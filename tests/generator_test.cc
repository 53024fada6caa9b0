#include "generate/generator.h"

#include <gtest/gtest.h>

#include <numeric>

#include "arch/config.h"

namespace tessera {
namespace {

// A model of every block, as it starts.
class Generator : public ::testing::Test {
 protected:
  Generator() : arena_(Arena::Backing::kMemory, int64_t{64} << 20), parameters_(&arena_, false) {
    const auto node = ParseYaml(
        "{d_model: 32, layers: [{mamba2: {head_dim: 16}}, {moe: {experts: 4, d_ff: 32}}, {gla: "
        "{heads: 2}}, mlp, {attention: {heads: 2, window: 16}}, {attention: {heads: 2}}]}",
        "test");
    ErrorList errors;
    model_ = std::make_unique<Model>(ReadModelConfig(*node, &errors), 64, &parameters_);
    parameters_.Initialise(1);
  }
  std::vector<int32_t> Greedy(const std::vector<int32_t>& prompt, int64_t tokens) const {
    return Generate(*model_, Device::kCpu, prompt, tokens, {.temperature = 0}, DType::kF32,
                    [](int32_t) { return true; })
        .tokens;
  }

  Arena arena_;
  ParameterSet parameters_;
  std::unique_ptr<Model> model_;
};

TEST_F(Generator, ContinuesALongTextFromItsStates) {
  std::vector<int32_t> text(7);
  std::iota(text.begin(), text.end(), 3);
  const std::vector<int32_t> all = Greedy(text, 300);
  ASSERT_EQ(all.size(), 300u);
  text.insert(text.end(), all.begin(), all.begin() + 150);
  EXPECT_EQ(Greedy(text, 150), std::vector<int32_t>(all.begin() + 150, all.end()));
}

TEST_F(Generator, StopsWhenTold) {
  int64_t seen = 0;
  const std::vector<int32_t> prompt = {1, 2};
  const Generation g = Generate(*model_, Device::kCpu, prompt, 50, {}, DType::kF32,
                                [&](int32_t) { return ++seen < 9; });
  EXPECT_EQ(g.tokens.size(), 9u);
  EXPECT_TRUE(Generate(*model_, Device::kCpu, prompt, 0, {}, DType::kF32, [](int32_t) {
                return true;
              }).tokens.empty());
}

}  // namespace
}  // namespace tessera
