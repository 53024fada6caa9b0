#include "generate/generator.h"

#include <gtest/gtest.h>

#include <chrono>
#include <limits>
#include <numeric>

#include "config/config.h"
#include "generate/stop_text.h"

namespace tessera {
namespace {

constexpr char kHybrid[] =
    "{d_model: 32, layers: [{mamba2: {head_dim: 16}}, {moe: {experts: 4, d_ff: 32}}, {gla: {heads: "
    "2}}, mlp, {attention: {heads: 2, window: 16}}, {attention: {heads: 2}}]}";

// A model as it starts.
class Generator : public ::testing::Test {
 protected:
  Generator() { Build(kHybrid); }
  void Build(const std::string& config) {
    model_.reset();
    parameters_.reset();
    arena_ = std::make_unique<Arena>(Arena::Backing::kMemory, int64_t{64} << 20);
    parameters_ = std::make_unique<ParameterSet>(arena_.get(), false);
    const auto node = ParseYaml(config, "test");
    ErrorList errors;
    model_ = std::make_unique<Model>(ReadModelConfig(*node, {}, &errors), 64, parameters_.get());
    ASSERT_TRUE(errors.empty()) << errors.ToStatus();
    parameters_->Initialise(1);
  }
  absl::StatusOr<Generation> Run(const std::vector<int32_t>& prompt, int64_t tokens,
                                 const Sampling& sampling = {.temperature = 0},
                                 DType compute = DType::kF32) const {
    return Generate(*model_, Device::kCpu, prompt, tokens, sampling, compute,
                    [](int32_t) { return true; });
  }
  std::vector<int32_t> Greedy(const std::vector<int32_t>& prompt, int64_t tokens) const {
    return Run(prompt, tokens)->tokens;
  }

  std::unique_ptr<Arena> arena_;
  std::unique_ptr<ParameterSet> parameters_;
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
  const auto g = Generate(*model_, Device::kCpu, prompt, 50, {}, DType::kF32,
                          [&](int32_t) { return ++seen < 9; });
  EXPECT_EQ(g->tokens.size(), 9u);
  EXPECT_TRUE(Greedy(prompt, 0).empty());
}

// An arena that is too small aborts, so a run to the end is the proof. 700 tokens pass the places
// where attention cuts its keys into more pieces, and where windows are full.
TEST_F(Generator, TheMemoryMeasuredBeforeIsEnough) {
  const char* layers[] = {"attention: {heads: 2}",
                          "attention: {heads: 2, window: 1}",
                          "attention: {heads: 2, window: 16}",
                          "attention: {heads: 2, window: 300}",
                          "mamba2: {head_dim: 16}",
                          "gla: {heads: 2}",
                          "moe: {experts: 4, d_ff: 32}",
                          "mlp"};
  std::vector<std::string> configs = {kHybrid};
  for (const char* layer : layers)
    configs.push_back("{d_model: 32, layers: [{" + std::string(layer) + "}, {" + layer + "}]}");
  for (const std::string& config : configs) {
    Build(config);
    for (const DType compute : {DType::kF32, DType::kBF16})
      for (const size_t prompt : {1, 290}) {
        const auto g =
            Run(std::vector<int32_t>(prompt, 3), 700 - static_cast<int64_t>(prompt), {}, compute);
        ASSERT_TRUE(g.ok()) << config << g.status();
        EXPECT_EQ(g->tokens.size(), 700 - prompt) << config;
      }
    // The places between those that are tried need no more than the last: it is the largest of
    // generations of every length.
    int64_t most = 0;
    for (int64_t tokens = 2; tokens < 1100; tokens += tokens < 40 ? 1 : 13)
      most = std::max(most, MeasureGeneration(*model_, 1, tokens, DType::kF32).step.bytes);
    EXPECT_EQ(most, MeasureGeneration(*model_, 1, 1100, DType::kF32).step.bytes) << config;
    EXPECT_GT(most, 0) << config;
    EXPECT_LT(most, 1 << 20) << config;
  }
}

TEST_F(Generator, StartsAtOnceHoweverManyTokensMayCome) {
  const std::vector<int32_t> prompt = {1, 2};
  const auto start = std::chrono::steady_clock::now();
  const auto one = [&](int64_t tokens) {
    return Generate(*model_, Device::kCpu, prompt, tokens, {}, DType::kF32,
                    [](int32_t) { return false; });
  };
  const auto g = one(2'000'000);
  ASSERT_TRUE(g.ok()) << g.status();
  EXPECT_EQ(g->tokens.size(), 1u);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(2));
  // Caches that no machine has are told before the first token, not by the system after many.
  EXPECT_TRUE(absl::IsResourceExhausted(one(int64_t{1} << 30).status()));
}

TEST_F(Generator, MistakesOfTheCallerAreStatuses) {
  const auto error = [&](const std::vector<int32_t>& prompt, int64_t tokens,
                         const Sampling& sampling = {}) {
    return std::string(Run(prompt, tokens, sampling).status().message());
  };
  EXPECT_EQ(error({}, 5), "the prompt is empty; at least one token is needed");
  EXPECT_EQ(error({1, 64}, 5),
            "token 1 of the prompt has id 64, but the model's vocabulary has 64 tokens");
  EXPECT_EQ(error({-1}, 5),
            "token 0 of the prompt has id -1, but the model's vocabulary has 64 tokens");
  EXPECT_EQ(error({1, 2}, -1),
            "-1 new tokens after a prompt of 2; from 0 to 2147483645 are possible");
  EXPECT_EQ(error({1, 2}, INT64_MAX),
            "9223372036854775807 new tokens after a prompt of 2; from 0 to 2147483645 are "
            "possible");
  EXPECT_EQ(error({1}, 5, {.top_p = 2}), "top-p 2: expected a probability in (0, 1]");
  parameters_->all()[0].var.value().data<float>()[3] = std::numeric_limits<float>::infinity();
  EXPECT_NE(error({0}, 5).find("have overflowed"), std::string::npos) << error({0}, 5);
}

TEST(StopText, EndsBeforeTheFirstStopText) {
  // Bytes as they come, a piece in brackets a call.
  const auto shown = [](std::vector<std::string> stops, const std::vector<std::string>& pieces) {
    StopText out(std::move(stops));
    std::string text;
    for (const std::string& piece : pieces) text += "[" + out.Take(piece) + "]";
    return text + (out.stopped() ? "!" : "+" + out.Rest());
  };
  EXPECT_EQ(shown({}, {"a", "b"}), "[a][b]+");
  EXPECT_EQ(shown({"ab"}, {"xa", "by"}), "[x][]!");
  EXPECT_EQ(shown({"ab"}, {"xa", "cy"}), "[x][acy]+");
  EXPECT_EQ(shown({"ab"}, {"xa"}), "[x]+a");
  EXPECT_EQ(shown({"aab"}, {"a", "a", "a", "b"}), "[][][a][]!");
  EXPECT_EQ(shown({"\n\n", "end"}, {"th", "e e", "n\n", "\nd"}), "[th][e ][en][]!");
  EXPECT_EQ(shown({"cd", "abcdef"}, {"abcd"}), "[ab]!");
  EXPECT_EQ(shown({"cd", "abcde"}, {"abcde"}), "[]!");
  EXPECT_EQ(shown({"x"}, {"x", "y"}), "[][]!");
}

}  // namespace
}  // namespace tessera
