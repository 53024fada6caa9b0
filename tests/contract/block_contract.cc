#include "tests/contract/block_contract.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "arch/registry.h"
#include "core/parallel.h"
#include "tests/contract/block_run.h"
#include "tests/contract/block_traits.h"
#include "tests/contract/op_case.h"

namespace tessera::testing {
namespace {

class BlockContract : public ::testing::TestWithParam<BlockCase> {};

void ExpectNear(const std::vector<double>& got, const std::vector<double>& want, double rms,
                const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  const Distance d = Compare(got, want);
  EXPECT_LE(d.rms, rms) << what << ", worst at " << d.worst_at << ": "
                        << got[static_cast<size_t>(d.worst_at)] << " for "
                        << want[static_cast<size_t>(d.worst_at)];
}

TEST_P(BlockContract, ConfigPrintsAndParsesBack) {
  auto config = FindBlock(GetParam().block)->make_config();
  ASSERT_TRUE(ReadFields(GetParam().config, *config).ok());
  const std::string printed = PrintFields(*config);
  auto again = FindBlock(GetParam().block)->make_config();
  const absl::Status read = ReadFields(printed, *again);
  ASSERT_TRUE(read.ok()) << read << "\n" << printed;
  EXPECT_EQ(PrintFields(*again), printed);
}

// What a block's config lists it makes, so that costs, states and traits find it.
TEST_P(BlockContract, HoldsTheLayersOfItsConfig) {
  const Subject s(GetParam(), Device::kMeta);
  const std::vector<HeldLayers> listed = s.config().config->Layers();
  const std::vector<HeldStack> made = s.block().Stacks();
  ASSERT_EQ(made.size(), listed.size());
  for (size_t i = 0; i < made.size(); ++i) {
    EXPECT_EQ(made[i].times, listed[i].times);
    ASSERT_EQ(made[i].stack->layers().size(), listed[i].layers->list.size());
  }
}

// Full, in chunks, token by token and generating in place are the same function; so are packed
// documents and each alone.
TEST_P(BlockContract, FullIsChunkedIsTokenByTokenIsPacked) {
  const BlockCase& c = GetParam();
  Subject s(c, Device::kCpu);
  const Traits traits = s.traits();
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    const double bar = compute == DType::kF32 ? 1e-5 : 2e-2;
    for (const int64_t T : {s.Fit(1), s.Fit(63), s.Fit(100)}) {
      const std::string at = std::string(Name(compute)) + ", T = " + std::to_string(T) + ": ";
      const int64_t B = 2;
      const std::vector<double> x = InputOf(B, T, c.D);
      const Outcome full = RunBlock(s, x, B, T, {.compute = compute});
      std::vector<int64_t> ones(static_cast<size_t>(T), 1), pieces = {T};
      if (T > 40) pieces = {37, 1, T - 38};
      for (const bool in_place : {false, true}) {
        if (!traits.decodes) break;
        const std::string how = at + (in_place ? "in place, " : "");
        ExpectNear(
            RunBlock(s, x, B, T, {.compute = compute, .chunks = pieces, .in_place = in_place}).y,
            full.y, bar, how + "in chunks");
        ExpectNear(
            RunBlock(s, x, B, T, {.compute = compute, .chunks = ones, .in_place = in_place}).y,
            full.y, bar, how + "token by token");
      }
      if (T < 63 || !traits.packs) continue;
      const int64_t m = traits.multiple_of;
      const std::vector<int64_t> starts = {0, 5 * m, 6 * m, (40 + m - 1) / m * m};
      const Outcome packed = RunBlock(s, x, B, T, {.compute = compute, .documents = starts});
      if (traits.decodes) {
        const Outcome chunks =
            RunBlock(s, x, B, T, {.compute = compute, .chunks = pieces, .documents = starts});
        ExpectNear(chunks.y, packed.y, bar, at + "packed in chunks");
      }
      for (size_t d = 0; d < starts.size(); ++d) {
        const int64_t end = d + 1 < starts.size() ? starts[d + 1] : T, n = end - starts[d];
        std::vector<double> part, want;
        for (int64_t b = 0; b < B; ++b)
          for (int64_t i = starts[d] * c.D; i < end * c.D; ++i) {
            part.push_back(x[static_cast<size_t>(b * T * c.D + i)]);
            want.push_back(packed.y[static_cast<size_t>(b * T * c.D + i)]);
          }
        ExpectNear(RunBlock(s, part, B, n, {.compute = compute}).y, want, bar,
                   at + "document " + std::to_string(d) + " alone");
      }
    }
  }
}

// Causal, documents and rows apart, any length, states: or what it says in their place.
TEST_P(BlockContract, IsWhatItSays) {
  Subject s(GetParam(), Device::kCpu);
  EXPECT_EQ(FalseTraits(s), "");
}

TEST_P(BlockContract, SameBitsForAnyNumberOfThreads) {
  const BlockCase& c = GetParam();
  Subject s(c, Device::kCpu);
  const int before = Threads();
  SetThreads(1);
  const int64_t T = s.Fit(100);
  const std::vector<double> x = InputOf(2, T, c.D);
  const Outcome one = RunBlock(s, x, 2, T, {.gradients = true});
  for (const int threads : {2, 3, 4, 8}) {
    SetThreads(threads);
    const Outcome many = RunBlock(s, x, 2, T, {.gradients = true});
    EXPECT_EQ(one.y, many.y) << threads << " threads";
    EXPECT_EQ(one.dx, many.dx) << threads << " threads";
    EXPECT_EQ(one.dparameters, many.dparameters) << threads << " threads";
  }
  SetThreads(before);
}

bool Idle(const BlockCase& c, const std::string& parameter) {
  return std::any_of(c.idle.begin(), c.idle.end(),
                     [&](const std::string& name) { return parameter == "block." + name; });
}

// The task alone, without losses of the block's own, moves every parameter that the case does not
// call idle, and none that it does. What is left of those is rounding.
TEST_P(BlockContract, TheTaskMovesEveryParameter) {
  const BlockCase& c = GetParam();
  Subject s(c, Device::kCpu);
  const int64_t T = s.Fit(63);
  const Outcome run = RunBlock(s, InputOf(2, T, c.D), 2, T, {.gradients = true, .training = false});
  std::map<std::string, double> size;
  double largest = 0;
  for (const auto& [name, g] : run.dparameters) {
    for (const double v : g) size[name] += v * v / static_cast<double>(g.size());
    largest = std::max(largest, size[name]);
  }
  for (const Parameter& p : s.parameters().all()) {
    if (!p.trainable) continue;
    if (Idle(c, p.name)) {
      EXPECT_LE(size[p.name], 1e-10 * largest) << p.name << " is not idle";
    } else {
      EXPECT_GT(size[p.name], 1e-10 * largest) << p.name << " never learns";
    }
  }
}

TEST_P(BlockContract, GradientsMatchDifferences) {
  const BlockCase& c = GetParam();
  Subject s(c, Device::kCpu);
  const int64_t B = 2, T = s.Fit(23);
  const std::vector<double> x = InputOf(B, T, c.D);
  const Outcome run = RunBlock(s, x, B, T, {.gradients = true});
  for (const Parameter& p : s.parameters().all())
    ASSERT_EQ(run.dparameters.count(p.name), p.trainable ? 1 : 0) << p.name << " has a gradient";
  const double step = 2e-3;
  const auto slopes = [&](const std::function<void(double)>& move) {  // below and above
    move(step);
    const double plus = RunBlock(s, x, B, T, {.gradients = true}).objective;
    move(-2 * step);
    const double minus = RunBlock(s, x, B, T, {.gradients = true}).objective;
    move(step);
    return std::pair((run.objective - minus) / step, (plus - run.objective) / step);
  };
  for (const Parameter& p : s.parameters().all()) {
    if (!p.trainable) continue;
    const std::vector<double>& g = run.dparameters.at(p.name);
    const double norm = std::sqrt(static_cast<double>(g.size()));
    // Where a choice changes, as a router's, the result jumps, and one of the two slopes with it:
    // such a direction is drawn anew.
    for (int draw = 0; draw < 8; ++draw) {
      const Rng rng(23, p.name + "/" + std::to_string(draw));
      double want = 0, size = 0;
      for (size_t i = 0; i < g.size(); ++i) {
        want += g[i] * rng.Normal(i) / norm;
        size += g[i] * g[i];
      }
      const auto [below, above] = slopes([&](double by) {
        for (size_t i = 0; i < g.size(); ++i)
          p.var.data<float>()[i] += static_cast<float>(by * rng.Normal(i) / norm);
      });
      const double bar = 2e-2 * std::sqrt(size / norm) + 2e-2 * std::fabs(want) + 2e-3;
      if (std::fabs(above - below) > 10 * bar && draw < 7) continue;
      EXPECT_NEAR((below + above) / 2, want, bar) << p.name;
      break;
    }
  }
}

// Gradients flow through the state: chunks are the whole. Not as in training, where a block's own
// losses are means over a chunk.
TEST_P(BlockContract, GradientsFlowThroughTheState) {
  const BlockCase& c = GetParam();
  Subject s(c, Device::kCpu);
  if (!s.traits().decodes) GTEST_SKIP() << "it has no state: " << s.traits().why;
  const int64_t B = 2, T = s.Fit(63);
  const std::vector<double> x = InputOf(B, T, c.D);
  const Way whole{.gradients = true, .training = false};
  Way chunks = whole;
  chunks.chunks = {T / 2, 1, T - T / 2 - 1};
  const Outcome full = RunBlock(s, x, B, T, whole);
  const Outcome chunked = RunBlock(s, x, B, T, chunks);
  ExpectNear(chunked.dx, full.dx, 1e-4, "dx");
  for (const auto& [name, g] : full.dparameters)
    if (!Idle(c, name)) ExpectNear(chunked.dparameters.at(name), g, 1e-4, "gradient of " + name);
}

TEST_P(BlockContract, StateBytesAreAsDeclared) {
  const BlockCase& c = GetParam();
  Subject s(c, Device::kCpu);
  if (!s.traits().decodes) GTEST_SKIP() << "it has no state: " << s.traits().why;
  for (const DType compute : {DType::kF32, DType::kBF16})
    for (const int64_t T : {1, 7, 100}) {
      const Outcome run =
          RunBlock(s, InputOf(2, T, c.D), 2, T, {.compute = compute, .chunks = {T}});
      const int64_t most = 2 * StatesOf(s.block(), compute).After(T);
      EXPECT_LE(run.state_bytes, most) << Name(compute) << ", T = " << T;
      if (!s.traits().reads_values) {
        EXPECT_EQ(run.state_bytes, most) << Name(compute) << ", T = " << T;
      }
    }
}

// Its CUDA kernels, executed on the host, compute what its CPU kernels do: a training pass, chunks
// and single tokens after a state, packed documents. In bf16 both round, each in its own places,
// and some blocks magnify that: the CUDA kernels are to be no further from the result in fp32 than
// the CPU's are, twice over.
TEST_P(BlockContract, CudaKernelsOnTheHostAgree) {
  const BlockCase& c = GetParam();
  Subject s(c, Device::kCpu);
  const int64_t B = 2, T = s.Fit(71);
  const Traits traits = s.traits();
  const std::vector<double> x = InputOf(B, T, c.D);
  const Way ways[] = {{.gradients = true},
                      {.documents = {0, s.Fit(20), s.Fit(64)}, .gradients = true},
                      {.chunks = {1, 17, 1, T - 19}},
                      {.chunks = {T - 11, 1, 1, 1, 8}, .in_place = true}};
  for (const DType compute : {DType::kF32, DType::kBF16})
    for (Way way : ways) {
      if ((!traits.decodes && !way.chunks.empty()) || (!traits.packs && !way.documents.empty()))
        continue;
      const bool half = compute == DType::kBF16;
      const Outcome want = RunBlock(s, x, B, T, way);
      way.compute = compute;
      const Outcome cpu = half ? RunBlock(s, x, B, T, way) : want;
      way.device = Device::kCuda;
      const Outcome got = RunBlock(s, x, B, T, way);
      const auto near = [&](const std::vector<double>& got, const std::vector<double>& cpu,
                            const std::vector<double>& want, double bar, const std::string& what) {
        EXPECT_LE(Compare(got, want).rms, std::max(bar, 2 * Compare(cpu, want).rms))
            << Name(compute) << " " << what;
      };
      near(got.y, cpu.y, want.y, half ? 1e-2 : 1e-5, "y");
      if (!way.gradients) continue;
      near(got.dx, cpu.dx, want.dx, half ? 2e-2 : 2e-5, "dx");
      for (const auto& [name, d] : want.dparameters)
        if (!Idle(c, name))
          near(got.dparameters.at(name), cpu.dparameters.at(name), d, half ? 2e-2 : 2e-5, name);
    }
}

TEST_P(BlockContract, CostOnMetaIsTheCostOfARun) {
  const BlockCase& c = GetParam();
  Subject real(c, Device::kCpu), meta(c, Device::kMeta);
  const int64_t T = real.Fit(63);
  const std::vector<double> x = InputOf(2, T, c.D);
  const Outcome a = RunBlock(real, x, 2, T, {.gradients = true});
  const Outcome b = RunBlock(meta, x, 2, T, {.gradients = true, .device = Device::kMeta});
  EXPECT_EQ(a.cost.flops, b.cost.flops);
  EXPECT_EQ(a.cost.bytes, b.cost.bytes);
  EXPECT_GT(a.cost.flops, 0);
}

std::string CaseName(const ::testing::TestParamInfo<BlockCase>& info) {
  std::string name = info.param.block + "_";
  for (const char ch : info.param.config)
    if (std::isalnum(static_cast<unsigned char>(ch))) name += ch;
  return name + "_" + std::to_string(info.index);
}

INSTANTIATE_TEST_SUITE_P(Blocks, BlockContract, ::testing::ValuesIn(AllBlockCases()), CaseName);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(BlockContract);

}  // namespace
}  // namespace tessera::testing
