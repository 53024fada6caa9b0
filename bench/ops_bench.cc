// Times the ops at the sizes of real models (bench/cases.h) on this machine's processor, each
// beside its limit: the larger of its bytes over the copy bandwidth and its FLOPs over the
// multiply-add peak, both measured first, in the same run. An op whose contract (tests/contract)
// does not hold is not timed. `of_limit` is the share of the limit that is reached (the library
// writes /s behind it). Flags are Google Benchmark's:
//
//   bench_ops --benchmark_filter=attention
//   bench_ops --benchmark_repetitions=5 --benchmark_enable_random_interleaving=true
//
// and TESSERA_THREADS, TESSERA_ISA choose threads and the instruction set.

#include <benchmark/benchmark.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <vector>

#include "bench/cases.h"
#include "core/parallel.h"
#include "kernels/peak.h"

namespace tessera {
namespace {

// Bytes read and written a second by copies that no cache holds: the best of several.
double MeasureCopyBandwidth() {
  constexpr int64_t kBytes = int64_t{256} << 20, kPiece = int64_t{1} << 20;
  std::vector<char> from(kBytes, 1), to(kBytes, 2);
  double best = 0;
  for (int i = 0; i < 5; ++i) {
    const auto start = std::chrono::steady_clock::now();
    ParallelRanges(kBytes, kPiece, [&](int64_t begin, int64_t end) {
      std::memcpy(to.data() + begin, from.data() + begin, static_cast<size_t>(end - begin));
    });
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
    best = std::max(best, 2.0 * kBytes / spent.count());
  }
  return best;
}

struct Limits {
  double bytes, fp32, bf16;  // a second
  double Seconds(const Cost& cost, DType dtype) const {
    return std::max(static_cast<double>(cost.bytes) / bytes,
                    static_cast<double>(cost.flops) / (dtype == DType::kBF16 ? bf16 : fp32));
  }
};

// Whether the contract of the op that this case times holds, looked up once an op.
bool Holds(const BenchCase& c) {
  static std::map<std::string, bool> known;
  const auto found = known.find(c.contract);
  if (found != known.end()) return found->second;
  std::fprintf(stderr, "the contract of %s\n", c.contract.c_str());
  ::testing::GTEST_FLAG(filter) = c.contract + "/OpContract.*:" + c.contract + ".*";
  const bool holds =
      RUN_ALL_TESTS() == 0 && ::testing::UnitTest::GetInstance()->successful_test_count() > 0;
  return known[c.contract] = holds;
}

enum class Pass : uint8_t { kForward, kForwardAndBackward };

void Time(benchmark::State& state, const BenchCase& c, Pass pass, const Limits& limits) {
  if (!Holds(c)) {
    state.SkipWithError("the contract of the op does not hold");
    return;
  }
  Arena arena(Arena::Backing::kMemory, int64_t{12} << 30);
  Context inputs(Device::kCpu, &arena);
  BenchSource source(inputs);
  const BenchCase::Made made = c.make(inputs, source);
  const bool backward = pass == Pass::kForwardAndBackward;
  CostCounter counter;
  std::vector<Tensor> cotangents;
  // New leaves have no gradients to add to: each is written anew.
  const auto run = [&] {
    Context ctx(Device::kCpu, &arena);
    ctx.compute = c.dtype;
    ctx.position = inputs.position;
    ctx.start = inputs.start;
    ctx.counter = &counter;
    ctx.SetRecording(backward);
    std::vector<Var> fresh;
    for (const Var& v : made.inputs) fresh.push_back(Leaf(v.value()));
    const std::vector<Var> outputs = made.run(ctx, fresh);
    if (!backward) return;
    std::vector<std::pair<Var, Tensor>> seeds;
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (cotangents.size() == i)
        cotangents.push_back(source.Normal(outputs[i].shape(), outputs[i].dtype()).value());
      seeds.emplace_back(outputs[i], cotangents[i]);
    }
    ctx.Backward(seeds);
  };
  run();
  for (auto _ : state) {
    counter.Clear();
    run();
  }
  Cost cost = counter.Total().forward;
  cost += counter.Total().backward;
  const auto times = benchmark::Counter::kIsIterationInvariantRate;
  state.counters["FLOP/s"] = benchmark::Counter(static_cast<double>(cost.flops), times);
  state.counters["B/s"] = benchmark::Counter(static_cast<double>(cost.bytes), times);
  state.counters["of_limit"] = benchmark::Counter(limits.Seconds(cost, c.dtype), times);
}

std::string NameOf(const BenchCase& c, const char* pass) {
  std::string name = c.name;
  for (const auto& [key, value] : c.shape.items()) name += " " + key + "=" + value.dump();
  return name + " " + Name(c.dtype) + " " + pass;
}

int Main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  int no_arguments = 1;
  ::testing::GTEST_FLAG(brief) = true;
  ::testing::InitGoogleTest(&no_arguments, argv);
  const char* const threads = std::getenv("TESSERA_THREADS");
  SetThreads(threads == nullptr ? 0 : std::atoi(threads));
  const Limits limits = {.bytes = MeasureCopyBandwidth(),
                         .fp32 = MeasurePeakFlops(DType::kF32),
                         .bf16 = MeasurePeakFlops(DType::kBF16)};
  const auto write = [](const char* key, double value, const char* unit) {
    char text[64];
    std::snprintf(text, sizeof text, "%.1f %s", value * 1e-9, unit);
    benchmark::AddCustomContext(key, text);
  };
  benchmark::AddCustomContext("instruction_set", Name(ActiveIsa()));
  benchmark::AddCustomContext("threads", std::to_string(Threads()));
  write("copies", limits.bytes, "GB/s");
  write("multiply_adds_fp32", limits.fp32, "GFLOP/s");
  write("multiply_adds_bf16", limits.bf16, "GFLOP/s");
  const std::vector<BenchCase> cases = AllBenchCases(BenchSizes::kCpu);
  for (const BenchCase& c : cases)
    for (const Pass pass : {Pass::kForward, Pass::kForwardAndBackward}) {
      if (pass == Pass::kForwardAndBackward && !c.backward) continue;
      const std::string name =
          NameOf(c, pass == Pass::kForward ? "forward" : "forward_and_backward");
      benchmark::RegisterBenchmark(
          name.c_str(), [&c, pass, &limits](benchmark::State& s) { Time(s, c, pass, limits); })
          ->Unit(benchmark::kMillisecond)
          ->UseRealTime();
    }
  return benchmark::RunSpecifiedBenchmarks() > 0 ? 0 : 1;
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) { return tessera::Main(argc, argv); }
