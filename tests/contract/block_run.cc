#include "tests/contract/block_run.h"

#include <gtest/gtest.h>

#include "arch/placement.h"
#include "arch/registry.h"
#include "tests/device/test_gpu.h"

namespace tessera::testing {
namespace {

// A GPU reads parameters that a test on the CPU made.
Arena::Memory MemoryFor(Device device) {
  return device == Device::kMeta ? Arena::Memory{}
                                 : TouchableMemory(Device::kCuda, int64_t{2} << 30);
}

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

}  // namespace

Subject::Subject(const BlockCase& c, Device device)
    : parameter_arena_(MemoryFor(device),
                       device == Device::kMeta ? Arena::Backing::kMeta : Arena::Backing::kMemory),
      parameters_(&parameter_arena_, true) {
  const BlockType* type = c.type != nullptr ? c.type : FindBlock(c.block);
  TESSERA_CHECK(type != nullptr, "no block %s", c.block.c_str());
  config_ = {.type = type, .config = type->make_config()};
  const absl::Status read = ReadFields(c.config, *config_.config);
  TESSERA_CHECK(read.ok(), "%s", std::string(read.message()).c_str());
  ErrorList errors;
  PlaceAlone(&config_, {.D = c.D, .layers = 4, .max_tokens = 256}, &errors);
  TESSERA_CHECK(errors.empty(), "%s", std::string(errors.ToStatus().message()).c_str());
  if (c.lora) parameters_.Tune({.adapt = AdaptConfig{c.lora}});
  Parameters p(&parameters_, config_.path);
  block_ = config_.config->Build(config_.shape, p);
  if (device == Device::kMeta) return;
  parameters_.Initialise(3);
  for (const Parameter& q : parameters_.all()) {
    const Rng rng(5, q.name);
    for (int64_t i = 0; i < q.var.shape().elements(); ++i)
      q.var.data<float>()[i] += static_cast<float>(0.1 * rng.Normal(static_cast<uint64_t>(i)));
  }
}

int64_t Subject::Fit(int64_t T) const {
  const Traits t = traits();
  const int64_t most = t.max_tokens > 0 ? std::min(T, t.max_tokens) : T;
  const int64_t up = (most + t.multiple_of - 1) / t.multiple_of * t.multiple_of;
  return t.max_tokens > 0 && up > t.max_tokens ? up - t.multiple_of : up;
}

Outcome RunBlock(Subject& s, const std::vector<double>& x, int64_t B, int64_t T, const Way& way) {
  const int64_t D = s.D();
  Arena arena(MemoryFor(way.device),
              way.device == Device::kMeta ? Arena::Backing::kMeta : Arena::Backing::kPoisoned);
  CostCounter counter;
  Context ctx(way.device, &arena);
  ctx.compute = way.compute;
  ctx.counter = &counter;
  ctx.training = way.gradients && way.training;
  ctx.noise_step = ctx.Zeros({1}, DType::kI32);
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
    ctx.EndPass();
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

std::vector<double> InputOf(int64_t B, int64_t T, int64_t D, int64_t b0) {
  std::vector<double> x;
  for (int64_t b = 0; b < B; ++b)
    for (int64_t t = 0; t < T; ++t)
      for (int64_t i = 0; i < D; ++i) x.push_back(InputAt(b0 + b, t, i));
  return x;
}

}  // namespace tessera::testing
