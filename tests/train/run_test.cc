#include "train/run.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/parallel.h"
#include "core/status.h"
#include "data/tokenizer.h"
#include "io/files.h"

// Whole runs: a hybrid trains, stops, goes on with the same bits, and refuses what is wrong with
// the words a person needs.

namespace tessera {
namespace {

namespace fs = std::filesystem;

class RunTest : public ::testing::Test {
 protected:
  RunTest() : folder_(::testing::TempDir() + "run_test_" + std::to_string(getpid())) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    std::ofstream text(folder_ + "/text.txt");
    for (int i = 0; i < 4000; ++i) text << "line " << i * i % 977 << " of the text\n";
  }
  ~RunTest() override {
    SetThreads(2);
    fs::remove_all(folder_);
  }

  std::string Config(const std::string& model, const std::string& train) {
    const std::string path = folder_ + "/c.yaml";
    std::ofstream(path) << "model:\n  d_model: 32\n" << model << "\ntrain:\n" << train << "\n";
    return path;
  }
  absl::Status Train(const std::string& path, const std::vector<std::string>& more,
                     const std::string& run, bool resume) {
    std::vector<std::string> overrides = {"train.steps=8", "train.batch=2", "train.seq=32",
                                          "train.eval_every=4", "train.eval_tokens=64"};
    overrides.insert(overrides.end(), more.begin(), more.end());
    TESSERA_ASSIGN_OR_RETURN(const RunConfig config, ReadRunConfig(path, overrides));
    const volatile int interrupted = 0;
    return TrainRun(
               config,
               {.directory = folder_ + "/" + run,
                .mode = resume ? RunMode::kResume : RunMode::kNew,
                .overrides = may_differ_},
               &interrupted,
               [&](const Trainer& t, const StepReport& r) {
                 // What was foretold is what happened. (Later micro-batches also add gradients.)
                 if (config.train.accumulate > 1) return;
                 const double tokens = static_cast<double>(config.train.TokensPerStep());
                 EXPECT_NEAR(r.flops, t.cost().training_flops * tokens, 1) << "step " << r.step;
                 const double told = static_cast<double>(t.cost().activation_bytes);
                 EXPECT_NEAR(static_cast<double>(t.activation_peak_bytes()), told, 0.1 * told);
               },
               [](const std::string&) {})
        .status();
  }
  std::string Text() { return "train.data.text=" + folder_ + "/text.txt"; }
  std::string folder_;
  std::vector<std::string> may_differ_;
};

// The same steps by the CUDA kernels, executed on the host: every op of the five blocks, forward
// and backward, loss and optimizer together.
TEST_F(RunTest, CudaKernelsOnTheHostTrainAlike) {
  const std::string path = Config(
      "  layers: [{mamba2: {head_dim: 16, d_state: 8}}, {moe: {experts: 4, d_ff: 24}}, {gla: "
      "{heads: "
      "2}}, {attention: {heads: 2, window: 20}}, mlp]",
      "  batch: 2\n  seq: 40\n  warmup: 1");
  const auto config = ReadRunConfig(path, {});
  ASSERT_TRUE(config.ok()) << config.status();
  const auto data = Dataset::Open({.path = folder_ + "/text.txt"}, MakeByteTokenizer(), 40);
  ASSERT_TRUE(data.ok()) << data.status();
  const auto cpu = Trainer::Create(*config, 256),
             simt = Trainer::Create(*config, 256, Device::kCuda);
  for (int step = 0; step < 4; ++step) {
    const auto want = (*cpu)->Step(*data), got = (*simt)->Step(*data);
    ASSERT_TRUE(want.ok() && got.ok());
    EXPECT_NEAR(got->loss, want->loss, 1e-5 * want->loss);
    EXPECT_NEAR(got->grad_norm, want->grad_norm, 1e-4 * want->grad_norm);
  }
  EXPECT_NEAR((*simt)->Evaluate(*data)->loss, (*cpu)->Evaluate(*data)->loss, 1e-4);
}

TEST_F(RunTest, ResumedAtItsMiddleIsTheSameRunOnAnyNumberOfThreads) {
  const std::string path = Config(
      "  layers:\n    - mamba2: {d_state: 16, head_dim: 16}\n"
      "    - moe: {experts: 4, top_k: 2, d_ff: 32}\n    - gla: {heads: 2}\n"
      "    - {parallel: {branches: [{attention: {heads: 2, window: 8}}, gla], combine: concat}}\n"
      "    - {mlp: {}, norm: sandwich}\n    - {gla: {heads: 2}, recompute: true}",
      "  accumulate: 2");
  ASSERT_TRUE(Train(path, {Text(), "train.threads=1"}, "whole", false).ok());
  ASSERT_TRUE(Train(path, {Text(), "train.threads=2", "train.stop_at=3"}, "parts", false).ok());
  ASSERT_TRUE(Train(path, {Text(), "train.threads=4"}, "parts", true).ok());
  for (const char* file : {"model", "optimizer"}) {
    const std::string at = std::string("/checkpoints/step-00000008/") + file + ".safetensors";
    EXPECT_EQ(*ReadFile(folder_ + "/whole" + at), *ReadFile(folder_ + "/parts" + at)) << file;
  }
  EXPECT_TRUE(fs::exists(folder_ + "/parts/report.html"));
}

// A checkpoint that does not say what it belongs to, as those of before did not.
TEST_F(RunTest, ACheckpointWithoutItsIdentityGoesOnWhereItStopped) {
  const std::string path = Config("  layers: [mlp]", "");
  ASSERT_TRUE(Train(path, {Text(), "train.stop_at=3"}, "run", false).ok());
  const std::string run = folder_ + "/run";
  {
    const absl::StatusOr<Checkpoint> c = LoadCheckpoint(run);
    ASSERT_TRUE(c.ok()) << c.status();
    ASSERT_TRUE(SaveCheckpoint(run, c->step,
                               {.model = c->model.tensors(), .optimizer = c->optimizer.tensors()},
                               nlohmann::json::object(), 2)
                    .ok());
  }
  EXPECT_FALSE(Train(path, {Text(), "train.lr=1e-4"}, "run", true).ok())
      << "the config is compared";
  ASSERT_TRUE(Train(path, {Text()}, "run", true).ok());
  EXPECT_NE(ReadFile(run + "/metrics.jsonl")->find("\"step\":4,\"tokens\":256"), std::string::npos);
}

TEST_F(RunTest, CostsWhatDescribeSays) {
  EXPECT_TRUE(Train(Config("  layers: [mamba2, {moe: {d_ff: 32}}, gla, attention, mlp]", ""),
                    {Text()}, "run", false)
                  .ok());
}

TEST_F(RunTest, ResolvedConfigReadsBackEqual) {
  const std::string path =
      Config("  layers: [attention, {repeat: 2, layers: [gla, moe]}, mlp]", "");
  const RunConfig config = *ReadRunConfig(path, {Text()});
  const std::string printed = PrintRunConfig(config);
  std::ofstream(folder_ + "/again.yaml") << printed;
  const absl::StatusOr<RunConfig> again = ReadRunConfig(folder_ + "/again.yaml", {});
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(PrintRunConfig(*again), printed);
  EXPECT_EQ(again->model.layers.size(), 6u);
}

TEST_F(RunTest, MistakesAreToldAndLeaveNothingBehind) {
  const std::string good = Config("  layers: [gla]", "");
  const auto told = [&](const std::vector<std::string>& more, const std::string& run) {
    return std::string(Train(good, more, run, false).message());
  };
  EXPECT_EQ(told({}, "a"),
            "no data: set train.data.text, train.data.jsonl or train.data.tokens to a file");
  EXPECT_NE(told({"train.data.text=" + folder_ + "/none.txt"}, "a").find("No such file"),
            std::string::npos);
  std::ofstream(folder_ + "/empty.txt") << "";
  EXPECT_NE(told({"train.data.text=" + folder_ + "/empty.txt"}, "a").find("empty"),
            std::string::npos);
  std::ofstream(folder_ + "/short.txt") << "abc";
  EXPECT_NE(told({"train.data.text=" + folder_ + "/short.txt"}, "a"), "");
  EXPECT_FALSE(fs::exists(folder_ + "/a"));
  fs::create_directories(folder_ + "/there");
  std::ofstream(folder_ + "/there/config.yaml") << "model:";
  EXPECT_EQ(
      told({Text()}, "there"),
      folder_ + "/there exists; continue it with --resume, or choose another --run directory");
  EXPECT_NE(told({Text()}, "text.txt/run"), "") << "a file is no folder";
  const auto config = [&](const std::string& layers) {
    return std::string(ReadRunConfig(Config("  layers: " + layers, ""), {}).status().message());
  };
  EXPECT_NE(config("[{attention: {heads: 5}}]").find("heads = 5 does not divide d_model = 32"),
            std::string::npos);
  EXPECT_NE(config("[{moe: {experts: 2, top_k: 3}}]").find("c.yaml:3:13: moe: "),
            std::string::npos);
  EXPECT_NE(config("[atention]").find("did you mean 'attention'?"), std::string::npos);
  EXPECT_NE(config("[]").find("an empty one"), std::string::npos);
  EXPECT_NE(config("[{gla: {}, mlp: {}}]").find("a layer holds one block"), std::string::npos);
  EXPECT_NE(config("[{gla: {}, input: nowhere}]").find("no earlier layer has the name 'nowhere'"),
            std::string::npos);
}

}  // namespace
}  // namespace tessera
