#include "core/engine.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "core/parallel.h"
#include "kernels/cpu/isa.h"
#include "kernels/device/cuda.h"
#include "tests/check_fails.h"
#include "tests/temporary_folder.h"
#include "train/run_config.h"
#include "train/trainer.h"

// Two computations in two threads of one process. tests/sanitize runs these under ThreadSanitizer.

namespace tessera {
namespace {

// What a training run gives: the loss of each step, then every weight.
std::vector<float> Train(const std::string& text, const std::string& layers, int steps) {
  const auto config =
      ParseRunConfig("{model: {d_model: 16, layers: " + layers + "}, train: {data: {text: '" +
                         text + "'}, batch: 2, seq: 40, lr: 1e-2, warmup: 0}}",
                     "engine", {});
  if (!config.ok()) throw std::runtime_error(std::string(config.status().message()));
  const auto data =
      Dataset::Open(config->train.data.Config(), MakeByteTokenizer(), config->train.seq);
  const auto trainer = Trainer::Create(*config, 256);
  if (!data.ok() || !trainer.ok()) throw std::runtime_error("no data or no trainer");
  std::vector<float> all;
  for (int i = 0; i < steps; ++i) {
    const auto step = (*trainer)->Step(*data);
    if (!step.ok()) throw std::runtime_error(std::string(step.status().message()));
    all.push_back(static_cast<float>(step->loss));
  }
  for (const auto& w : (*trainer)->Weights())
    all.insert(all.end(), w.tensor.data<float>(), w.tensor.data<float>() + w.tensor.elements());
  return all;
}

TEST(EngineTest, TwoTrainersInTwoThreadsGiveWhatEachGivesAlone) {
  TemporaryFolder folder;
  const std::string text = folder.path("text");
  {
    std::ofstream out(text);
    for (int i = 0; i < 400; ++i) out << "word " << i * i % 97 << ' ';
  }
  const std::string graphs[] = {
      "[{attention: {heads: 2}}, {moe: {experts: 3, top_k: 2, d_ff: 12}}]",
      "[{gla: {heads: 2}}, {mamba2: {head_dim: 8, d_state: 8}}, {mlp: {d_ff: 24}}]"};
  std::vector<float> alone[2], together[2];
  for (int i = 0; i < 2; ++i) alone[i] = Train(text, graphs[i], 3);
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i)
    threads.emplace_back([&, i] {
      Engine engine(2 + i);
      const Engine::Use use(engine);
      together[i] = Train(text, graphs[i], 3);
    });
  for (std::thread& t : threads) t.join();
  for (int i = 0; i < 2; ++i) {
    ASSERT_GT(alone[i].size(), 1000u);
    EXPECT_EQ(alone[i], together[i]) << graphs[i];
  }
}

// Each waits within its job for the other's, for as long as threads in common would keep it.
TEST(EngineTest, JobsOfTwoEnginesRunAtOnceOnThreadsOfTheirOwn) {
  std::atomic<int> inside{0};
  std::set<std::thread::id> ids[2];
  std::mutex mutex;
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i)
    threads.emplace_back([&, i] {
      Engine engine(2);
      const Engine::Use use(engine);
      ParallelFor(2, [&](int64_t) {
        ++inside;
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
        while (inside < 4 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
        EXPECT_EQ(inside, 4);
        EXPECT_EQ(&Engine::Current(), &engine);
        const std::lock_guard<std::mutex> lock(mutex);
        ids[i].insert(std::this_thread::get_id());
      });
    });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(ids[0].size(), 2u);
  EXPECT_EQ(ids[1].size(), 2u);
  for (const auto& id : ids[0]) EXPECT_EQ(ids[1].count(id), 0u);
}

TEST(EngineTest, ThreadsInstructionSetAndGpuAreItsOwn) {
  const int threads = Threads();
  const Isa isa = ActiveIsa();
  Engine engine(3);
  {
    const Engine::Use use(engine);
    EXPECT_EQ(Threads(), 3);
    SetThreads(2);
    EXPECT_EQ(Threads(), 2);
    EXPECT_TRUE(SetIsa(Isa::kAvx2));
    EXPECT_EQ(ActiveIsa(), Isa::kAvx2);
    testing::ExpectCheckFails([] { Cuda(); }, "no GPU is open");
    {
      Engine inner(1);
      const Engine::Use also(inner);
      EXPECT_EQ(Threads(), 1);
    }
    EXPECT_EQ(Threads(), 2);
    std::thread([&] { EXPECT_NE(&Engine::Current(), &engine); }).join();
  }
  EXPECT_EQ(Threads(), threads);
  EXPECT_EQ(ActiveIsa(), isa);
}

TEST(EngineTest, IsNotChosenInsideAJob) {
  Engine engine(1);
  ParallelFor(2, [&](int64_t) {
    testing::ExpectCheckFails([&] { const Engine::Use use(engine); }, "inside a ParallelFor");
  });
}

}  // namespace
}  // namespace tessera
