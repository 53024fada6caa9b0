#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "config/config.h"
#include "core/status.h"
#include "generate/generator.h"
#include "io/files.h"
#include "tests/device/test_gpu.h"
#include "train/run.h"

// The host's side of a GPU: training, runs and generation on one that works behind the host's back
// in memory that the host cannot touch (tests/device/host_gpu.h).

namespace tessera::testing {
namespace {

namespace fs = std::filesystem;

constexpr char kModel[] =
    "model:\n  d_model: 32\n  layers: [{mamba2: {head_dim: 16, d_state: 8}}, {moe: {experts: 4, "
    "d_ff: 24}}, {gla: {heads: 2}}, {attention: {heads: 2, window: 20}}, mlp]\n";

class GpuRuntime : public ::testing::Test {
 protected:
  GpuRuntime() : folder_(::testing::TempDir() + "gpu_runtime_" + std::to_string(getpid())) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    std::ofstream text(folder_ + "/text.txt");
    std::ofstream documents(folder_ + "/text.jsonl");
    for (int i = 0; i < 2000; ++i) {
      text << "line " << i * i % 977 << " of the text\n";
      documents << "{\"text\": \"" << std::string(static_cast<size_t>(i % 60 + 3), 'a' + i % 26)
                << "\"}\n";
    }
  }
  ~GpuRuntime() override { fs::remove_all(folder_); }

  RunConfig Config(std::vector<std::string> overrides, const std::string& model = kModel) {
    const std::string path = folder_ + "/c.yaml";
    std::ofstream(path) << model << "train:\n  batch: 2\n  seq: 40\n  warmup: 1\n";
    absl::StatusOr<RunConfig> config = ReadRunConfig(path, overrides);
    if (!config.ok()) ADD_FAILURE() << config.status();
    return *std::move(config);
  }
  absl::StatusOr<Dataset> Data(const RunConfig& c) {
    return Dataset::Open(c.train.data.Config(), MakeByteTokenizer(), c.train.seq);
  }
  std::string folder_;
};

// Steps are started ahead; the second is recorded and the others are that graph again, so that none
// after the first allocates, and the host waits for their reports alone. Micro-batches of packed
// documents have different shares of the targets in every step.
TEST_F(GpuRuntime, StepsAreOneGraphAndTrainAsOnTheCpu) {
  const RunConfig config = Config(
      {"train.data.jsonl=" + folder_ + "/text.jsonl", "train.accumulate=2", "train.steps=8"});
  const auto data = Data(config);
  ASSERT_TRUE(data.ok()) << data.status();
  ScopedHostGpu gpu(HostGpu::Mode::kLater);
  const auto cpu = Trainer::Create(config, 256), cuda = Trainer::Create(config, 256, Device::kCuda);
  ASSERT_TRUE(cpu.ok() && cuda.ok()) << cuda.status();
  Trainer& t = **cuda;
  ASSERT_EQ(t.most_started(), 2);
  const int64_t allocations = gpu->counts().allocations;
  t.Start(*data);
  const HostGpu::Counts first = gpu->counts();
  for (int step = 1; step <= 6; ++step) {
    t.Start(*data);
    const auto want = (*cpu)->Step(*data), got = t.Finish();
    ASSERT_TRUE(want.ok() && got.ok()) << got.status();
    EXPECT_EQ(got->step, step);
    EXPECT_NEAR(got->loss, want->loss, 1e-5 * want->loss);
    EXPECT_NEAR(got->grad_norm, want->grad_norm, 1e-4 * want->grad_norm);
    EXPECT_EQ(got->flops, want->flops);
    ASSERT_EQ(got->metrics.size(), want->metrics.size());
    for (const auto& [name, values] : want->metrics)
      for (size_t i = 0; i < values.size(); ++i)
        EXPECT_NEAR(got->metrics.at(name)[i], values[i], 1e-4) << name;
  }
  ASSERT_TRUE(t.Finish().ok() && (*cpu)->Step(*data).ok());
  const HostGpu::Counts& last = gpu->counts();
  EXPECT_EQ(last.waits - first.waits, 7);
  EXPECT_EQ(last.captures, 1);
  EXPECT_EQ(last.graph_launches, 6);
  EXPECT_EQ(last.launches - first.launches, first.launches);  // those of the one that is recorded
  EXPECT_NEAR(t.Evaluate(*data)->loss, (*cpu)->Evaluate(*data)->loss, 1e-3);
  EXPECT_EQ(last.allocations, allocations);  // what kernels use between launches was foreseen
}

// Micro-batches with different numbers of targets are one batch: each counts by its share.
TEST_F(GpuRuntime, MicroBatchesAreOneBatch) {
  ScopedHostGpu gpu(HostGpu::Mode::kLater);
  for (const Device device : {Device::kCpu, Device::kCuda}) {
    std::vector<StepReport> steps;
    for (const auto& [batch, accumulate] : {std::pair{4, 1}, std::pair{1, 4}}) {
      const RunConfig config = Config(
          {"train.data.jsonl=" + folder_ + "/text.jsonl", "train.batch=" + std::to_string(batch),
           "train.accumulate=" + std::to_string(accumulate)},
          "model:\n  d_model: 32\n  layers: [{gla: {heads: 2}}, mlp]\n");
      const auto data = Data(config);
      ASSERT_TRUE(data.ok()) << data.status();
      const auto trainer = Trainer::Create(config, 257, device);
      ASSERT_TRUE(trainer.ok()) << trainer.status();
      steps.push_back((*trainer)->Step(*data).value());
    }
    EXPECT_NEAR(steps[1].loss, steps[0].loss, 1e-5 * steps[0].loss) << Name(device);
    EXPECT_NEAR(steps[1].grad_norm, steps[0].grad_norm, 1e-4 * steps[0].grad_norm) << Name(device);
  }
}

// What kernels use between launches is taken before the first step, by each block as the one that
// needs most.
TEST_F(GpuRuntime, ScratchMemoryIsForeseen) {
  for (const char* layer :
       {"{mamba2: {head_dim: 32, d_state: 64}}", "{moe: {experts: 8, d_ff: 512, shared: 1}}",
        "{gla: {heads: 2, expand_v: 2}}", "{attention: {heads: 8, kv_heads: 2}}"}) {
    ScopedHostGpu gpu(HostGpu::Mode::kLater);
    const ScopedWgmma always("always");
    const RunConfig config =
        Config({"train.data.text=" + folder_ + "/text.txt", "train.precision=bf16"},
               std::string("model:\n  d_model: 32\n  vocab: bytes\n  layers: [") + layer + "]\n");
    const auto data = Data(config);
    ASSERT_TRUE(data.ok()) << data.status();
    const auto trainer = Trainer::Create(config, 256, Device::kCuda);
    ASSERT_TRUE(trainer.ok()) << trainer.status();
    const int64_t allocations = gpu->counts().allocations;
    EXPECT_TRUE((*trainer)->Step(*data).ok());
    EXPECT_EQ(gpu->counts().allocations, allocations) << layer;
    EXPECT_GT((*trainer)->cost().cuda_scratch_bytes, 0);
  }
}

// Validation, checkpoints and what reads them; stopped and continued, with the same bits.
TEST_F(GpuRuntime, RunsSaveResumeAndGenerate) {
  ScopedHostGpu gpu(HostGpu::Mode::kLater);
  const std::vector<std::string> settings = {"train.data.text=" + folder_ + "/text.txt",
                                             "train.steps=9", "train.eval_every=4",
                                             "train.eval_tokens=160", "train.save_every=3"};
  const auto run = [&](const std::string& name, std::vector<std::string> more, bool resume,
                       Device device) {
    more.insert(more.end(), settings.begin(), settings.end());
    const volatile int interrupted = 0;
    std::vector<double> losses;
    const auto directory = TrainRun(
        Config(more),
        {.directory = folder_ + "/" + name,
         .mode = resume ? RunMode::kResume : RunMode::kNew,
         .device = device},
        &interrupted, [&](const Trainer&, const StepReport& r) { losses.push_back(r.loss); },
        [](const std::string&) {});
    EXPECT_TRUE(directory.ok()) << directory.status();
    return losses;
  };
  const auto whole = run("whole", {}, false, Device::kCuda);
  auto parts = run("parts", {"train.stop_at=5"}, false, Device::kCuda);
  for (const double loss : run("parts", {}, true, Device::kCuda)) parts.push_back(loss);
  EXPECT_EQ(whole, parts);
  for (const char* file : {"model", "optimizer"}) {
    const std::string at = std::string("/checkpoints/step-00000009/") + file + ".safetensors";
    EXPECT_EQ(*ReadFile(folder_ + "/whole" + at), *ReadFile(folder_ + "/parts" + at)) << file;
  }
  const auto cpu = run("cpu", {}, false, Device::kCpu);
  ASSERT_EQ(cpu.size(), whole.size());
  for (size_t i = 0; i < cpu.size(); ++i) EXPECT_NEAR(whole[i], cpu[i], 1e-4 * cpu[i]);

  const std::vector<int32_t> prompt = {'l', 'i', 'n', 'e', ' '};
  std::vector<std::vector<int32_t>> texts;
  for (const Device device : {Device::kCpu, Device::kCuda}) {
    const auto loaded = LoadRun(folder_ + "/whole", device);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    texts.push_back(
        Generate(*loaded->model, device, prompt, 60, {.temperature = 0}, DType::kF32, [](int32_t) {
          return true;
        })->tokens);
  }
  EXPECT_EQ(texts[0], texts[1]);
  EXPECT_EQ(gpu->counts().captures, 3 + 57);  // of three runs, and of each token after the third
}

TEST_F(GpuRuntime, SizesThatTheKernelsLackAreToldFirst) {
  ScopedHostGpu gpu(HostGpu::Mode::kLater);
  const RunConfig config =
      Config({},
             "model:\n  d_model: 640\n  layers: [{attention: {heads: 2}}, {gla: {heads: 2}}, "
             "{mamba2: {d_state: 128, head_dim: 128}}, mlp]\n");
  const auto trainer = Trainer::Create(config, 256, Device::kCuda);
  ASSERT_FALSE(trainer.ok());
  const std::string told(trainer.status().message());
  for (const char* part :
       {"layers[0].attention: heads of 320 channels; the CUDA kernels of attention take up to 256",
        "layers[1].gla: heads of", "layers[2].mamba2: a state of 128 x 128", "--device cpu"})
    EXPECT_NE(told.find(part), std::string::npos) << told;
  EXPECT_EQ(told.find("layers[3]"), std::string::npos);
  EXPECT_EQ(gpu->counts().allocations, 0);
}

TEST_F(GpuRuntime, TooLittleMemoryIsToldBeforeAnythingIsTaken) {
  ScopedHostGpu gpu(HostGpu::Mode::kLater, 1 << 20);
  const auto trainer = Trainer::Create(Config({}), 256, Device::kCuda);
  ASSERT_FALSE(trainer.ok());
  EXPECT_NE(trainer.status().message().find("the GPU has free 0.00"), std::string::npos)
      << trainer.status();
  EXPECT_EQ(gpu->counts().allocations, 0);
}

TEST_F(GpuRuntime, ALossThatIsNotFiniteStopsTheStepsAfterItToo) {
  const RunConfig config =
      Config({"train.data.text=" + folder_ + "/text.txt", "train.lr=1e30", "train.clip=0"});
  const auto data = Data(config);
  ScopedHostGpu gpu(HostGpu::Mode::kLater);
  const auto trainer = Trainer::Create(config, 256, Device::kCuda);
  ASSERT_TRUE(trainer.ok()) << trainer.status();
  absl::StatusOr<StepReport> report = StepReport{};
  (*trainer)->Start(*data);
  for (int i = 0; i < 20 && report.ok(); ++i) {
    (*trainer)->Start(*data);
    report = (*trainer)->Finish();
  }
  ASSERT_FALSE(report.ok());
  EXPECT_NE(report.status().message().find("nothing was updated"), std::string::npos);
  EXPECT_EQ((*trainer)->started(), 0);
}

}  // namespace
}  // namespace tessera::testing
