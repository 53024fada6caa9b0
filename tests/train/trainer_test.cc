#include "train/trainer.h"

#include <gtest/gtest.h>

#include <fstream>

#include "ops/pointwise.h"
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

TEST(Trainer, AMetricWhoseSizeDependsOnTheBatchIsRefused) {
  TemporaryFolder folder;
  std::ofstream(folder.path("text")) << std::string(2000, 'a');
  RunConfig config;
  config.model.d_model = 8;
  config.model.layers = {
      {.path = "layers[0].talkative",
       .branches = {{&kTalkative, std::shared_ptr<BlockType::Config>(kTalkative.make_config())}}}};
  config.train.batch = 2;
  config.train.seq = 3;
  config.train.data.text = folder.path("text");
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
