#include "train/evaluate.h"

#include <gtest/gtest.h>

#include "io/files.h"
#include "tests/temporary_folder.h"
#include "train/trainer.h"

namespace tessera {
namespace {

// A small model as it starts, and data whose last 200 tokens are for validation.
class EvaluateTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string text;
    for (int i = 0; i < 400; ++i) text.push_back(static_cast<char>('a' + i * i % 23));
    Open({.path = folder_.path("data"), .val_fraction = 0.5}, text);
  }
  void Open(const DataConfig& config, const std::string& bytes) {
    ASSERT_TRUE(AtomicWrite(config.path, bytes).ok());
    auto data = Dataset::Open(config, MakeByteTokenizer(), 16);
    ASSERT_TRUE(data.ok()) << data.status();
    data_ = std::make_unique<Dataset>(*std::move(data));
  }
  absl::StatusOr<Evaluation> Loss(int64_t most, int64_t batch = 2,
                                  const EvaluationProgress& progress = nullptr) {
    RunConfig config = *ParseRunConfig("model: {d_model: 16, layers: [mlp]}", "test", {});
    config.train.batch = batch;
    config.train.seq = 16;
    config.train.eval_tokens = most;
    return (*Trainer::Create(config, 256))->Evaluate(*data_, progress);
  }

  TemporaryFolder folder_;
  std::unique_ptr<Dataset> data_;
};

TEST_F(EvaluateTest, ReadsAtMostTheTokensAskedFor) {
  for (const int64_t most : {1, 10, 31, 32, 33, 65, 100, 199, 1000000})
    EXPECT_EQ(Loss(most)->tokens, std::min<int64_t>(most, 199)) << most;
  EXPECT_EQ(Loss(INT64_MAX)->tokens, 199);
  // The same tokens whatever the batch is.
  EXPECT_NEAR(Loss(50, 1)->loss, Loss(50, 7)->loss, 1e-6);
  EXPECT_NEAR(Loss(50, 1)->bits_per_byte, Loss(50)->loss / std::log(2.0), 1e-6);
}

TEST_F(EvaluateTest, StopsWhenTold) {
  std::vector<int64_t> done;
  const Evaluation e = *Loss(INT64_MAX, 2, [&](int64_t i, int64_t n) {
    EXPECT_EQ(n, 7);
    done.push_back(i);
    return i < 3;
  });
  EXPECT_TRUE(e.stopped);
  EXPECT_EQ(e.tokens, 3 * 32);
  EXPECT_EQ(done, (std::vector<int64_t>{1, 2, 3}));
  EXPECT_FALSE(Loss(INT64_MAX)->stopped);
  int64_t last = 0, of = 0;
  EXPECT_TRUE(Loss(40, 2, [&](int64_t i, int64_t n) {
                last = i, of = n;
                return true;
              }).ok());
  EXPECT_EQ(last, 2);
  EXPECT_EQ(of, 2);
}

TEST_F(EvaluateTest, TargetsThatNothingAnnouncesDoNotCount) {
  std::string rows;
  for (int i = 0; i < 200; ++i) rows += "{\"text\": \"abc\"}\n";
  Open({.format = DataConfig::Format::kJsonl, .path = folder_.path("rows"), .val_fraction = 0.5},
       rows);
  EXPECT_EQ(Loss(1)->tokens, 1);
  EXPECT_EQ(Loss(33)->tokens, 33);
  EXPECT_EQ(Loss(INT64_MAX)->tokens, 200);  // two of three
}

}  // namespace
}  // namespace tessera
