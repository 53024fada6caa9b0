#include "train/run.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

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

// The state between steps, the noise of each step and the masks of each batch are a run's, too.
TEST_F(RunTest, WhatStepsLeaveForOneAnotherResumesWithTheSameBits) {
  const std::string path = Config(
      "  dropout: 0.2\n  layers:\n    - mamba2: {d_state: 16, head_dim: 16}\n"
      "    - attention: {heads: 2, window: 21}\n    - {gla: {heads: 2}, recompute: true}\n"
      "    - hourglass: {shorten: 3, layers: [{gla: {heads: 2}}]}",
      "  accumulate: 2");
  std::set<std::string> weights;
  for (const std::string way : {"order=stream", "order=shuffled", "objective=masked"}) {
    const std::string key = "train." + way, whole = way + "/whole", parts = way + "/parts";
    const std::string ends =
        way == "objective=masked" ? "model.layers=[{gla: {heads: 2}}]" : "train.seed=1";
    fs::create_directories(folder_ + "/" + way);
    const auto train = [&](const char* more, const std::string& run, bool resume) {
      const absl::Status s = Train(path, {Text(), key, ends, more}, run, resume);
      EXPECT_TRUE(s.ok()) << way << ": " << s;
    };
    train("train.threads=1", whole, false);
    train("train.stop_at=3", parts, false);
    train("train.threads=4", parts, true);
    for (const char* file : {"model", "optimizer"}) {
      const std::string at = std::string("/checkpoints/step-00000008/") + file + ".safetensors";
      EXPECT_EQ(*ReadFile(folder_ + "/" + whole + at), *ReadFile(folder_ + "/" + parts + at))
          << way << ": " << file;
    }
    weights.insert(
        *ReadFile(folder_ + "/" + whole + "/checkpoints/step-00000008/model.safetensors"));
  }
  EXPECT_EQ(weights.size(), 3u);
}

TEST_F(RunTest, EveryOptimizerResumesWithTheSameBits) {
  const std::string path =
      Config("  layers: [{gla: {heads: 2}}, {moe: {experts: 4, d_ff: 24}}]", "");
  std::vector<std::string> weights;
  for (const OptimizerType* type : Optimizers()) {
    const std::string name = type->name, optimizer = "train.optimizer=" + name;
    const std::string whole = name + "/whole", parts = name + "/parts";
    fs::create_directories(folder_ + "/" + name);
    ASSERT_TRUE(Train(path, {Text(), optimizer, "train.threads=1"}, whole, false).ok()) << name;
    ASSERT_TRUE(
        Train(path, {Text(), optimizer, "train.threads=2", "train.stop_at=3"}, parts, false).ok());
    ASSERT_TRUE(Train(path, {Text(), optimizer, "train.threads=4"}, parts, true).ok()) << name;
    for (const char* file : {"model", "optimizer"}) {
      const std::string at = std::string("/checkpoints/step-00000008/") + file + ".safetensors";
      EXPECT_EQ(*ReadFile(folder_ + "/" + whole + at), *ReadFile(folder_ + "/" + parts + at))
          << name << ": " << file;
    }
    weights.push_back(
        *ReadFile(folder_ + "/" + whole + "/checkpoints/step-00000008/model.safetensors"));
  }
  std::ranges::sort(weights);
  EXPECT_EQ(std::ranges::adjacent_find(weights), weights.end()) << "two of them do the same";
}

TEST_F(RunTest, AnotherOptimizerIsAnotherRun) {
  const std::string path = Config("  layers: [mlp]", "");
  ASSERT_TRUE(Train(path, {Text(), "train.stop_at=3"}, "run", false).ok());
  const absl::Status other = Train(path, {Text(), "train.optimizer=lion"}, "run", true);
  EXPECT_PRED_FORMAT2(::testing::IsSubstring, "train.optimizer: adamw -> lion",
                      std::string(other.message()));
  may_differ_ = {"train.optimizer", "train.beta2", "train.epsilon"};
  const absl::Status states = Train(path, {Text(), "train.optimizer=lion"}, "run", true);
  EXPECT_PRED_FORMAT2(::testing::IsSubstring, "the checkpoint has no lion.",
                      std::string(states.message()));
}

TEST_F(RunTest, KeysOfAnOptimizerAreItsOwn) {
  const std::string path = Config("  layers: [mlp]", "  optimizer: sgd");
  const auto sgd = ReadRunConfig(path, {"train.momentum=0.8"});
  ASSERT_TRUE(sgd.ok()) << sgd.status();
  EXPECT_EQ(sgd->train.optimizer.Get("momentum"), 0.8);
  EXPECT_EQ(PrintRunConfig(*sgd).find("beta1"), std::string::npos);
  const auto again = ParseRunConfig(PrintRunConfig(*sgd), "again", {});
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(PrintRunConfig(*again), PrintRunConfig(*sgd));
  EXPECT_PRED_FORMAT2(::testing::IsSubstring,
                      "beta1 has no effect here: it needs `optimizer: adamw`, lion or muon",
                      std::string(ReadRunConfig(path, {"train.beta1=0.5"}).status().message()));
  EXPECT_PRED_FORMAT2(
      ::testing::IsSubstring, "one of adamw, lion, muon, sgd",
      std::string(ReadRunConfig(path, {"train.optimizer=lyon"}).status().message()));
  // Each has its own value where nobody sets one.
  const auto lion = ReadRunConfig(path, {"train.optimizer=lion"});
  ASSERT_TRUE(lion.ok()) << lion.status();
  EXPECT_NE(PrintRunConfig(*lion).find("beta2: 0.99"), std::string::npos) << PrintRunConfig(*lion);
}

// As many states as the optimiser has, and no more.
TEST_F(RunTest, MemoryIsThatOfTheOptimizersStates) {
  const std::string path = Config("  layers: [mlp]", "  batch: 1\n  seq: 8");
  const auto bytes = [&](const std::string& optimizer) {
    const auto config = ReadRunConfig(path, {"train.optimizer=" + optimizer});
    EXPECT_TRUE(config.ok()) << config.status();
    const auto trainer = Trainer::Create(*config, 256);
    EXPECT_TRUE(trainer.ok()) << trainer.status();
    EXPECT_EQ((*trainer)->parameter_bytes(), Trainer::StandingBytes(*config, 256)) << optimizer;
    return (*trainer)->parameter_bytes();
  };
  const auto config = ReadRunConfig(path, {});
  ASSERT_TRUE(config.ok());
  const int64_t parameters =
      MeasureCost(config->model, 256, 1, 8, DType::kF32).parameters * int64_t{sizeof(float)};
  EXPECT_NEAR(static_cast<double>(bytes("adamw") - bytes("sgd")), static_cast<double>(parameters),
              0.01 * static_cast<double>(parameters));
  EXPECT_EQ(bytes("lion"), bytes("sgd"));
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
  EXPECT_EQ(again->model.layers.list.size(), 6u);
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
