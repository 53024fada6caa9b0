#include "train/trainer.h"

#include <gtest/gtest.h>

#include <fstream>

#include "ops/pointwise.h"
#include "ops/product.h"
#include "tests/check_fails.h"
#include "tests/temporary_folder.h"

namespace tessera {
namespace {

// A block that reports a value a token.
struct TalkativeConfig {
  void Fields(FieldList&) {}
  absl::Status Check(const BlockShape&) const { return absl::OkStatus(); }
};
class Talkative final : public Block {
 public:
  Talkative(const TalkativeConfig&, const BlockShape&, Parameters&) {}
  Var Forward(Context& ctx, const Var& x, State*) const override {
    ctx.Metric("sizes", ctx.Zeros({x.rows()}, DType::kF32));
    return Scale(ctx, x, 1);
  }
  StateSize States(DType) const override { return {}; }
};
constexpr BlockType kTalkative = DefineBlock<Talkative, TalkativeConfig>("talkative", "", "");

// A block with a trained weight, a frozen one and a buffer.
struct FrozenConfig {
  void Fields(FieldList&) {}
  absl::Status Check(const BlockShape&) const { return absl::OkStatus(); }
};
class Frozen final : public Block {
 public:
  Frozen(const FrozenConfig&, const BlockShape& in, Parameters& p)
      : trained_(p.Linear("trained", in.D, in.D)),
        frozen_(p.Add({.name = "frozen",
                       .shape = {in.D, in.D},
                       .role = Role::kMatrix,
                       .decay = Decay::kYes,
                       .parts = {{.rows = in.D}},
                       .trainable = false})),
        buffer_(p.Buffer("buffer", {in.D}, Constant(0.5))) {}
  Var Forward(Context& ctx, const Var& x, State*) const override {
    return Linear(ctx, Linear(ctx, x, trained_), frozen_, buffer_);
  }
  StateSize States(DType) const override { return {}; }

 private:
  Projection trained_;
  Var frozen_, buffer_;
};
constexpr BlockType kFrozen = DefineBlock<Frozen, FrozenConfig>("frozen", "", "");

RunConfig ConfigOf(const BlockType& type, const TemporaryFolder& folder) {
  std::ofstream(folder.path("text")) << std::string(2000, 'a');
  RunConfig config;
  config.model.d_model = 8;
  config.model.layers.list = {
      {.branches = {{&type, std::shared_ptr<BlockType::Config>(type.make_config())}}}};
  ErrorList errors;
  PlaceLayers(&config.model, {}, &errors);
  EXPECT_TRUE(errors.empty());
  config.train.data.text = folder.path("text");
  config.train.batch = 2;
  return config;
}

TEST(Trainer, WhatIsNotTrainedIsKeptAsItIs) {
  TemporaryFolder folder;
  for (const OptimizerType* optimizer : Optimizers()) {
    RunConfig config = ConfigOf(kFrozen, folder);
    config.train.seq = 8;
    config.train.warmup = 0;
    config.train.optimizer.type = optimizer;
    const auto data =
        Dataset::Open(config.train.data.Config(), MakeByteTokenizer(), config.train.seq);
    ASSERT_TRUE(data.ok()) << data.status();
    const auto trainer = Trainer::Create(config, 256);
    ASSERT_TRUE(trainer.ok()) << trainer.status();
    std::map<std::string, std::vector<float>> before;
    const auto values = [](const Tensor& t) {
      return std::vector<float>(t.data<float>(), t.data<float>() + t.elements());
    };
    for (const auto& w : (*trainer)->Weights()) before[w.name] = values(w.tensor);
    ASSERT_TRUE((*trainer)->Step(*data).ok());
    int kept = 0;
    for (const auto& w : (*trainer)->Weights()) {
      const bool trained = w.name.find("frozen.frozen") == std::string::npos &&
                           w.name.find("frozen.buffer") == std::string::npos;
      EXPECT_EQ(values(w.tensor) != before[w.name], trained) << optimizer->name << ": " << w.name;
      kept += trained ? 0 : 1;
    }
    EXPECT_EQ(kept, 2) << "a checkpoint has both";
    for (const auto& s : (*trainer)->OptimizerStates())
      EXPECT_TRUE(!s.name.ends_with("frozen.frozen") && !s.name.ends_with("frozen.buffer"))
          << s.name;
  }
}

TEST(Trainer, AMetricWhoseSizeDependsOnTheBatchIsRefused) {
  TemporaryFolder folder;
  RunConfig config = ConfigOf(kTalkative, folder);
  config.train.seq = 3;
  const auto data =
      Dataset::Open(config.train.data.Config(), MakeByteTokenizer(), config.train.seq);
  ASSERT_TRUE(data.ok()) << data.status();
  const auto trainer = Trainer::Create(config, 256);
  ASSERT_TRUE(trainer.ok()) << trainer.status();
  testing::ExpectCheckFails(
      [&] { (*trainer)->Start(*data); },
      "the metric layers[0].talkative.sizes has 6 values in a batch of 2 x 3 tokens and 1 "
      "in one of a token");
}

// With a learning rate of next to nothing, so that the parameters stay as they are.
std::vector<double> Losses(const TemporaryFolder& folder, const std::string& model,
                           const std::vector<std::string>& keys, int steps, int letters = 23) {
  const std::string path = folder.path("letters");
  if (std::ofstream out(path); out)
    for (int i = 0; i < 2000; ++i) out << static_cast<char>('a' + i * i % letters);
  absl::StatusOr<RunConfig> config = ParseRunConfig(
      "model: {d_model: 16, layers: " + model + "}\ntrain: {lr: 1e-30, warmup: 0, batch: 2}", "c",
      keys);
  EXPECT_TRUE(config.ok()) << config.status();
  config->train.data.text = path;
  const auto data =
      Dataset::Open(config->train.data.Config(), MakeByteTokenizer(), config->train.seq);
  const auto batches = MakeBatches(*config, path, *data, *MakeByteTokenizer());
  const auto trainer = Trainer::Create(*config, 256);
  EXPECT_TRUE(trainer.ok()) << trainer.status();
  std::vector<double> losses;
  for (int step = 0; step < steps; ++step) losses.push_back((*trainer)->Step(**batches)->loss);
  return losses;
}

TEST(Trainer, AStreamInShortStepsIsTheStreamInLongOnes) {
  TemporaryFolder folder;
  const std::string model =
      "[{attention: {heads: 2, window: 20}}, {gla: {heads: 2}}, {mamba2: {d_state: 16, head_dim: "
      "16}}]";
  const auto of = [&](const char* order, const char* seq, int steps) {
    return Losses(folder, model, {order, seq}, steps);
  };
  const std::vector<double> whole = of("train.order=stream", "train.seq=32", 3),
                            parts = of("train.order=stream", "train.seq=8", 12);
  for (size_t i = 0; i < whole.size(); ++i)
    EXPECT_NEAR(whole[i],
                (parts[4 * i] + parts[4 * i + 1] + parts[4 * i + 2] + parts[4 * i + 3]) / 4, 1e-5);
}

// More steps than it takes to fill a window, and batches that begin anywhere in a group.
TEST(Trainer, AStreamFitsIntoTheMemoryThatWasMeasured) {
  TemporaryFolder folder;
  for (const char* model : {"[{attention: {heads: 2, window: 300}}]",
                            "[{hourglass: {shorten: 7, layers: [{attention: {heads: 2, window: "
                            "9}}]}}]",
                            "[{recurrent_memory: {segment: 11, tokens: 2, gradient: false, layers: "
                            "[{attention: {heads: 2}}]}}]"})
    EXPECT_EQ(Losses(folder, model, {"train.order=stream", "train.seq=8"}, 60).size(), 60u);
}

TEST(Trainer, AStreamWhoseStateGrowsWithoutEndIsRefused) {
  TemporaryFolder folder;
  RunConfig config = *ParseRunConfig(
      "model: {d_model: 16, layers: [{gla: {heads: 2}}, {attention: {heads: 2}}]}\n"
      "train: {seq: 8, batch: 2, order: stream}",
      "c", {});
  EXPECT_EQ(Trainer::Create(config, 256).status().message(),
            "train.order: stream carries the model's state from step to step, and that of "
            "layers[1].attention would grow without end; give attention a `window`, or train with "
            "`order: shuffled`");
}

TEST(Trainer, EachStepDropsOutAnew) {
  TemporaryFolder folder;
  const auto losses = [&](const char* rate) {
    // Of one letter, so that every step reads the same tokens.
    return Losses(folder, "[mlp, mlp]", {rate, "train.seq=16"}, 3, 1);
  };
  const std::vector<double> none = losses("model.dropout=0"), some = losses("model.dropout=0.3");
  EXPECT_EQ(none[0], none[1]);
  EXPECT_NE(some[0], some[1]);
  EXPECT_EQ(some, losses("model.dropout=0.3"));
  EXPECT_NE(none[0], some[0]);
}

}  // namespace
}  // namespace tessera
