#include "tests/contract/block_contract.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "arch/registry.h"
#include "config/fields.h"
#include "core/parallel.h"
#include "tests/contract/op_case.h"
#include "tests/device/test_gpu.h"

namespace tessera::testing {
namespace {

// A GPU reads parameters that a test on the CPU made.
Arena::Memory MemoryFor(Device device) {
  return device == Device::kMeta ? Arena::Memory{}
                                 : TouchableMemory(Device::kCuda, int64_t{2} << 30);
}

class BlockContract : public ::testing::TestWithParam<BlockCase> {};

// A block at its config, with parameters that are not at their resting values: a gate at zero or a
// gain of one would hide a missing term.
class Subject {
 public:
  Subject(const BlockCase& c, Device device)
      : parameter_arena_(MemoryFor(device),
                         device == Device::kMeta ? Arena::Backing::kMeta : Arena::Backing::kMemory),
        parameters_(&parameter_arena_, true) {
    const BlockType* type = FindBlock(c.block);
    TESSERA_CHECK(type != nullptr, "no block %s", c.block.c_str());
    auto config = type->make_config();
    const absl::Status read = ReadFields(c.config, *config);
    TESSERA_CHECK(read.ok(), "%s", std::string(read.message()).c_str());
    const BlockShape shape{.D = c.D, .layers = 4};
    const absl::Status checked = config->Check(shape);
    TESSERA_CHECK(checked.ok(), "%s", std::string(checked.message()).c_str());
    Parameters p(&parameters_, "block");
    block_ = config->Build(shape, p);
    if (device == Device::kMeta) return;
    parameters_.Initialise(3);
    for (const Parameter& q : parameters_.all()) {
      const Rng rng(5, q.name);
      for (int64_t i = 0; i < q.var.shape().elements(); ++i)
        q.var.data<float>()[i] += static_cast<float>(0.1 * rng.Normal(static_cast<uint64_t>(i)));
    }
  }
  const Block& block() const { return *block_; }
  ParameterSet& parameters() { return parameters_; }

 private:
  Arena parameter_arena_;
  ParameterSet parameters_;
  std::unique_ptr<Block> block_;
};

struct Outcome {
  std::vector<double> y;
  std::vector<double> dx;
  std::map<std::string, std::vector<double>> dparameters;
  Cost cost;
  int64_t state_bytes = 0;
  double objective = 0;
};

struct Way {
  DType compute = DType::kF32;
  std::vector<int64_t> chunks;     // empty: one call without a state
  std::vector<int64_t> documents;  // starts of documents, packed
  bool gradients = false;
  bool training = true;   // with gradients: losses of the block's own and limits count too
  bool in_place = false;  // generation: caches of fixed capacity
  Device device = Device::kCpu;
};

std::vector<double> Values(const Tensor& t) {
  std::vector<double> v;
  if (!t.defined() || t.raw() == nullptr) return v;
  for (int64_t r = 0; r < t.rows(); ++r)
    for (int64_t i = 0; i < t.dim(-1); ++i) {
      const int64_t at = r * t.stride() + i;
      v.push_back(t.dtype() == DType::kF32
                      ? static_cast<double>(t.data<float>()[at])
                      : static_cast<double>(static_cast<float>(t.data<bf16>()[at])));
    }
  return v;
}

// Input element (b, t, i) depends on those alone, so that a part of a batch is the batch of a part.
double InputAt(int64_t b, int64_t t, int64_t i, const char* what = "x") {
  return Rng(17, what).Normal(static_cast<uint64_t>((b * 4096 + t) * 4096 + i));
}

Outcome RunBlock(Subject& s, const std::vector<double>& x, int64_t B, int64_t T, int64_t D,
                 const Way& way) {
  Arena arena(MemoryFor(way.device),
              way.device == Device::kMeta ? Arena::Backing::kMeta : Arena::Backing::kPoisoned);
  CostCounter counter;
  Context ctx(way.device, &arena);
  ctx.compute = way.compute;
  ctx.counter = &counter;
  ctx.training = way.gradients && way.training;
  std::map<std::string, ExtraLoss> losses;
  ctx.extra_losses = &losses;
  ctx.SetRecording(way.gradients);
  s.parameters().ForgetGradients();
  Outcome run;
  State state;
  state.capacity = way.in_place ? T : 0;
  const std::vector<int64_t> chunks = way.chunks.empty() ? std::vector<int64_t>{T} : way.chunks;
  std::vector<Var> inputs;
  std::vector<std::pair<Var, Tensor>> seeds;
  run.y.resize(static_cast<size_t>(B * T * D));
  int64_t t0 = 0;
  for (const int64_t n : chunks) {
    Tensor in = ctx.New({B, n, D}, way.compute), position = ctx.New({B, n}, DType::kI32),
           start = ctx.New({B, n}, DType::kI32);
    Tensor seed = ctx.New({B, n, D}, way.compute);
    for (int64_t b = 0; b < B && in.raw() != nullptr; ++b)
      for (int64_t t = 0; t < n; ++t) {
        int64_t pos = t0 + t;
        for (const int64_t d : way.documents)
          if (d <= t0 + t) pos = t0 + t - d;
        position.data<int32_t>()[b * n + t] = static_cast<int32_t>(pos);
        start.data<int32_t>()[b * n + t] = static_cast<int32_t>(t - pos);
        for (int64_t i = 0; i < D; ++i) {
          const int64_t at = (b * n + t) * D + i;
          const float v = static_cast<float>(x[static_cast<size_t>((b * T + t0 + t) * D + i)]);
          const float c = static_cast<float>(InputAt(b, t0 + t, i, "cotangent"));
          if (way.compute == DType::kF32) {
            in.data<float>()[at] = v;
            seed.data<float>()[at] = c;
          } else {
            in.data<bf16>()[at] = bf16(v);
            seed.data<bf16>()[at] = bf16(c);
          }
        }
      }
    ctx.position = position;
    ctx.start = start;
    inputs.push_back(way.gradients ? Leaf(in) : Var(in));
    const bool with_state = !way.chunks.empty();
    const Var y = s.block().Forward(ctx, inputs.back(), with_state ? &state : nullptr);
    Wait(way.device, Mark(way.device));
    state.tokens += n;
    EXPECT_TRUE(y.shape() == Shape({B, n, D})) << y.shape().ToString();
    EXPECT_EQ(y.dtype(), way.compute);
    const std::vector<double> values = Values(y.value()), cotangent = Values(seed);
    for (size_t j = 0; j < values.size(); ++j) {
      const int64_t b = static_cast<int64_t>(j) / (n * D), rest = static_cast<int64_t>(j) % (n * D);
      run.y[static_cast<size_t>((b * T + t0) * D + rest)] = values[j];
      run.objective += values[j] * cotangent[j];
    }
    if (way.gradients) seeds.emplace_back(y, seed);
    t0 += n;
  }
  for (const auto& [name, loss] : losses)
    for (const double v : Values(loss.value)) run.objective += loss.coefficient * v;
  run.state_bytes = state.bytes();
  if (way.gradients) {
    state = State();
    ctx.Backward(seeds);
    Wait(way.device, Mark(way.device));
    run.dx.resize(static_cast<size_t>(B * T * D));
    t0 = 0;
    for (size_t c = 0; c < inputs.size(); ++c) {
      const std::vector<double> g = Values(inputs[c].grad()->grad);
      const int64_t n = chunks[c];
      for (size_t j = 0; j < g.size(); ++j) {
        const int64_t b = static_cast<int64_t>(j) / (n * D),
                      rest = static_cast<int64_t>(j) % (n * D);
        run.dx[static_cast<size_t>((b * T + t0) * D + rest)] = g[j];
      }
      t0 += n;
    }
    for (const Parameter& p : s.parameters().all())
      if (p.trainable && p.var.grad()->started)
        run.dparameters[p.name] = Values(p.var.grad()->grad);
  }
  run.cost = counter.Total().forward;
  run.cost += counter.Total().backward;
  return run;
}

std::vector<double> Input(int64_t B, int64_t T, int64_t D, int64_t b0 = 0) {
  std::vector<double> x;
  for (int64_t b = 0; b < B; ++b)
    for (int64_t t = 0; t < T; ++t)
      for (int64_t i = 0; i < D; ++i) x.push_back(InputAt(b0 + b, t, i));
  return x;
}

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

// Full, in chunks, token by token and generating in place are the same function; so are packed
// documents and each alone.
TEST_P(BlockContract, FullIsChunkedIsTokenByTokenIsPacked) {
  const BlockCase& c = GetParam();
  Subject s(c, Device::kCpu);
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    const double bar = compute == DType::kF32 ? 1e-5 : 2e-2;
    for (const int64_t T : {1, 63, 100}) {
      const std::string at = std::string(Name(compute)) + ", T = " + std::to_string(T) + ": ";
      const int64_t B = s.block().MixesRows() ? 1 : 2;
      const std::vector<double> x = Input(B, T, c.D);
      const Outcome full = RunBlock(s, x, B, T, c.D, {.compute = compute});
      std::vector<int64_t> ones(static_cast<size_t>(T), 1), pieces = {T};
      if (T > 40) pieces = {37, 1, T - 38};
      for (const bool in_place : {false, true}) {
        const std::string how = at + (in_place ? "in place, " : "");
        ExpectNear(
            RunBlock(s, x, B, T, c.D, {.compute = compute, .chunks = pieces, .in_place = in_place})
                .y,
            full.y, bar, how + "in chunks");
        ExpectNear(
            RunBlock(s, x, B, T, c.D, {.compute = compute, .chunks = ones, .in_place = in_place}).y,
            full.y, bar, how + "token by token");
      }
      if (T == 1) continue;
      const std::vector<int64_t> starts = {0, 5, 6, 40};
      const Outcome packed = RunBlock(s, x, B, T, c.D, {.compute = compute, .documents = starts});
      const Outcome packed_chunks =
          RunBlock(s, x, B, T, c.D, {.compute = compute, .chunks = pieces, .documents = starts});
      ExpectNear(packed_chunks.y, packed.y, bar, at + "packed in chunks");
      for (size_t d = 0; d < starts.size(); ++d) {
        const int64_t end = d + 1 < starts.size() ? starts[d + 1] : T, n = end - starts[d];
        std::vector<double> part, want;
        for (int64_t b = 0; b < B; ++b)
          for (int64_t i = starts[d] * c.D; i < end * c.D; ++i) {
            part.push_back(x[static_cast<size_t>(b * T * c.D + i)]);
            want.push_back(packed.y[static_cast<size_t>(b * T * c.D + i)]);
          }
        ExpectNear(RunBlock(s, part, B, n, c.D, {.compute = compute}).y, want, bar,
                   at + "document " + std::to_string(d) + " alone");
      }
    }
  }
}

TEST_P(BlockContract, IsCausal) {
  const BlockCase& c = GetParam();
  Subject s(c, Device::kCpu);
  const int64_t T = 63, change = 41;
  std::vector<double> x = Input(1, T, c.D);
  const Outcome before = RunBlock(s, x, 1, T, c.D, {});
  for (int64_t i = 0; i < c.D; ++i) x[static_cast<size_t>(change * c.D + i)] += 1;
  const Outcome after = RunBlock(s, x, 1, T, c.D, {});
  double later = 0;
  for (int64_t i = 0; i < T * c.D; ++i) {
    const double d = std::fabs(before.y[static_cast<size_t>(i)] - after.y[static_cast<size_t>(i)]);
    if (i < change * c.D) {
      // The same sums over other tiles may round otherwise, but no more.
      ASSERT_LE(d, 1e-5) << "token " << i / c.D << " saw a later one";
    } else {
      later += d;
    }
  }
  EXPECT_GT(later, 1e-3) << "the change of a token changed nothing";
}

TEST_P(BlockContract, RowsDoNotMix) {
  const BlockCase& c = GetParam();
  Subject s(c, Device::kCpu);
  if (s.block().MixesRows()) GTEST_SKIP() << "the block says that rows share a capacity";
  const int64_t T = 63;
  const Outcome both = RunBlock(s, Input(2, T, c.D), 2, T, c.D, {});
  const Outcome second = RunBlock(s, Input(1, T, c.D, 1), 1, T, c.D, {});
  ExpectNear({both.y.begin() + T * c.D, both.y.end()}, second.y, 1e-5, "row 1 of 2");
}

TEST_P(BlockContract, SameBitsForAnyNumberOfThreads) {
  const BlockCase& c = GetParam();
  Subject s(c, Device::kCpu);
  const int before = Threads();
  SetThreads(1);
  const std::vector<double> x = Input(2, 100, c.D);
  const Outcome one = RunBlock(s, x, 2, 100, c.D, {.gradients = true});
  for (const int threads : {2, 3, 4, 8}) {
    SetThreads(threads);
    const Outcome many = RunBlock(s, x, 2, 100, c.D, {.gradients = true});
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
  const int64_t T = 63;
  const Outcome run =
      RunBlock(s, Input(2, T, c.D), 2, T, c.D, {.gradients = true, .training = false});
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
  const int64_t B = 2, T = 23;
  const std::vector<double> x = Input(B, T, c.D);
  const Outcome run = RunBlock(s, x, B, T, c.D, {.gradients = true});
  for (const Parameter& p : s.parameters().all())
    ASSERT_EQ(run.dparameters.count(p.name), p.trainable ? 1 : 0) << p.name << " has a gradient";
  const double step = 2e-3;
  const auto slopes = [&](const std::function<void(double)>& move) {  // below and above
    move(step);
    const double plus = RunBlock(s, x, B, T, c.D, {.gradients = true}).objective;
    move(-2 * step);
    const double minus = RunBlock(s, x, B, T, c.D, {.gradients = true}).objective;
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
  const int64_t B = 2, T = 63;
  const std::vector<double> x = Input(B, T, c.D);
  const Way whole{.gradients = true, .training = false};
  Way chunks = whole;
  chunks.chunks = {37, 1, T - 38};
  const Outcome full = RunBlock(s, x, B, T, c.D, whole);
  const Outcome chunked = RunBlock(s, x, B, T, c.D, chunks);
  ExpectNear(chunked.dx, full.dx, 1e-4, "dx");
  for (const auto& [name, g] : full.dparameters)
    if (!Idle(c, name)) ExpectNear(chunked.dparameters.at(name), g, 1e-4, "gradient of " + name);
}

TEST_P(BlockContract, StateBytesAreAsDeclared) {
  const BlockCase& c = GetParam();
  Subject s(c, Device::kCpu);
  for (const DType compute : {DType::kF32, DType::kBF16})
    for (const int64_t T : {1, 7, 100}) {
      const Outcome run =
          RunBlock(s, Input(2, T, c.D), 2, T, c.D, {.compute = compute, .chunks = {T}});
      EXPECT_EQ(run.state_bytes, 2 * s.block().States(compute).After(T))
          << Name(compute) << ", T = " << T;
    }
}

// Its CUDA kernels, executed on the host, compute what its CPU kernels do: a training pass, chunks
// and single tokens after a state, packed documents. In bf16 both round, each in its own places,
// and some blocks magnify that: the CUDA kernels are to be no further from the result in fp32 than
// the CPU's are, twice over.
TEST_P(BlockContract, CudaKernelsOnTheHostAgree) {
  const BlockCase& c = GetParam();
  Subject s(c, Device::kCpu);
  const int64_t B = 2, T = 71;
  const std::vector<double> x = Input(B, T, c.D);
  const Way ways[] = {{.gradients = true},
                      {.documents = {0, 20, 64}, .gradients = true},
                      {.chunks = {1, 17, 1, 52}},
                      {.chunks = {60, 1, 1, 1, 8}, .in_place = true}};
  for (const DType compute : {DType::kF32, DType::kBF16})
    for (Way way : ways) {
      const bool half = compute == DType::kBF16;
      const Outcome want = RunBlock(s, x, B, T, c.D, way);
      way.compute = compute;
      const Outcome cpu = half ? RunBlock(s, x, B, T, c.D, way) : want;
      way.device = Device::kCuda;
      const Outcome got = RunBlock(s, x, B, T, c.D, way);
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
  const std::vector<double> x = Input(2, 63, c.D);
  const Outcome a = RunBlock(real, x, 2, 63, c.D, {.gradients = true});
  const Outcome b = RunBlock(meta, x, 2, 63, c.D, {.gradients = true, .device = Device::kMeta});
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
