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

}  // namespace
}  // namespace tessera
