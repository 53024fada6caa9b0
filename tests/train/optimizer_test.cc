#include "train/optimizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/rng.h"
#include "kernels/dispatch.h"
#include "tests/device/test_gpu.h"
#include "train/schedule.h"

namespace tessera {
namespace {

struct Where {
  Device device;
  Isa isa;
};
constexpr Where kEverywhere[] = {
    {Device::kCpu, Isa::kAvx2}, {Device::kCpu, Isa::kAvx512}, {Device::kCuda, Isa::kAvx2}};

// The norm of the gradients of two tensors, one longer than a block, and what follows from it.
TEST(Step, FindsTheNormAndTheLoss) {
  if (testing::RealGpu()) GTEST_SKIP() << "its arrays are the host's";
  for (const auto& [device, isa] : kEverywhere) {
    if (!SetIsa(isa)) continue;
    std::vector<float> g[] = {std::vector<float>(3), std::vector<float>(2 * kOptimizerBlock + 5)};
    std::vector<OptimizerTensor> tensors;
    double squares = 0;
    for (std::vector<float>& x : g) {
      for (size_t i = 0; i < x.size(); ++i) {
        x[i] = std::cos(0.3f * static_cast<float>(i));
        squares += static_cast<double>(x[i]) * x[i];
      }
      tensors.push_back({.gradient = x.data(), .size = static_cast<int64_t>(x.size())});
    }
    std::vector<double> partial(static_cast<size_t>(OptimizerBlocks(tensors.data(), 2)));
    Dispatch(device,
             SquareSumArgs{.tensors = tensors.data(), .count = 2, .partial = partial.data()});
    const double clip = 0.5 * std::sqrt(squares);
    const OptimizerStep step = {.lr = 0.01f, .clip = static_cast<float>(clip)};
    const float losses[] = {3, 5}, shares[] = {0.25f, 0.75f};
    StepOutcome outcome = {};
    StepOutcomeArgs args = {.partial = partial.data(),
                            .blocks = static_cast<int64_t>(partial.size()),
                            .loss = losses,
                            .share = shares,
                            .count = 2,
                            .step = &step,
                            .outcome = &outcome};
    Dispatch(device, args);
    EXPECT_EQ(outcome.loss, 4.5);
    EXPECT_NEAR(outcome.grad_norm, std::sqrt(squares), 1e-5 * std::sqrt(squares));
    EXPECT_NEAR(outcome.gradient_scale, 0.5, 1e-5);
    EXPECT_EQ(outcome.halted, 0);
    // A loss that is not finite halts for good.
    const float bad[] = {NAN, 5};
    for (const float* loss : {bad, losses}) {
      args.loss = loss;
      Dispatch(device, args);
      EXPECT_NE(outcome.halted, 0);
    }
  }
}

// The parameters of a small model of every role, of which one is frozen and one no parameter.
class Bench {
 public:
  Bench(Device device, const std::string& type)
      : device_(device), arena_(testing::TouchableMemory(device, int64_t{8} << 20)) {
    const auto add = [&](const char* name, const Shape& shape, Role role, Decay decay,
                         double lr_scale = 1, bool trainable = true) {
      parameters_.Add({.name = name,
                       .shape = shape,
                       .role = role,
                       .decay = decay,
                       .parts = {{.rows = shape[0]}},
                       .lr_scale = lr_scale,
                       .trainable = trainable});
    };
    add("wide", {5, 7}, Role::kMatrix, Decay::kYes);
    add("frozen", {4, 4}, Role::kMatrix, Decay::kYes, 1, false);
    add("tall", {9, 4}, Role::kMatrix, Decay::kYes, 0.5);
    add("experts", {3, 4, 6}, Role::kExpert, Decay::kYes);
    add("embedding", {11, 3}, Role::kEmbedding, Decay::kYes);
    add("buffer", {3}, Role::kBuffer, Decay::kNo, 1, false);
    add("gains", {2 * kOptimizerBlock + 5}, Role::kVector, Decay::kNo);
    for (const Parameter& p : parameters_.all())
      for (int64_t i = 0; i < p.shape.elements(); ++i)
        p.var.data<float>()[i] = std::sin(0.1f * static_cast<float>(i) + 1);
    for (const OptimizerType* t : Optimizers())
      if (t->name == type) config_.type = t;
    optimizer_ = MakeOptimizer({config_, parameters_, &arena_, device});
  }
  const std::vector<Parameter>& parameters() const { return parameters_.all(); }
  const Optimizer& optimizer() const { return *optimizer_; }
  OptimizerConfig& config() { return config_; }
  // Step t, from 1, with gradients scaled by a half.
  void Step(int64_t t, int32_t halted = 0) {
    for (const Parameter& p : parameters())
      for (int64_t i = 0; p.trainable && i < p.shape.elements(); ++i)
        p.var.grad()->grad.data<float>()[i] = GradientAt(p.name, t, i);
    OptimizerStep step = {.lr = 0.01f};
    optimizer_->SetCorrections(t, &step);
    const StepOutcome outcome = {.gradient_scale = 0.5f, .halted = halted};
    optimizer_->Update(&step, &outcome);
    Wait(device_, Mark(device_));
  }
  static float GradientAt(const std::string& name, int64_t t, int64_t i) {
    return static_cast<float>(Rng(static_cast<uint64_t>(t), name).Normal(static_cast<uint64_t>(i)));
  }
  // Every number that an optimiser could change.
  std::vector<float> Numbers() const {
    std::vector<float> all;
    const auto add = [&](const Tensor& t) {
      all.insert(all.end(), t.data<float>(), t.data<float>() + t.elements());
    };
    for (const Parameter& p : parameters()) add(p.var.value());
    for (const Optimizer::State& s : optimizer_->states()) add(s.tensor);
    return all;
  }

 private:
  Device device_;
  Arena arena_;
  ParameterSet parameters_{&arena_, true};
  OptimizerConfig config_;
  std::unique_ptr<Optimizer> optimizer_;
};

// X (or its transpose) so that singular values come near 1, by loops: X = a X + b A X + c A A X.
void Orthogonalise(int64_t n, int64_t m, double* X) {
  double norm = 0;
  for (int64_t i = 0; i < n * m; ++i) norm += X[i] * X[i];
  for (int64_t i = 0; i < n * m; ++i) X[i] /= std::sqrt(norm);
  for (int step = 0; step < 5; ++step) {
    const auto times_gram = [&](const std::vector<double>& Y) {  // X X^T Y
      std::vector<double> inner(static_cast<size_t>(m * m)), Z(static_cast<size_t>(n * m));
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < m; ++j)
          for (int64_t r = 0; r < n; ++r)
            inner[static_cast<size_t>(i * m + j)] +=
                X[r * m + i] * Y[static_cast<size_t>(r * m + j)];
      for (int64_t r = 0; r < n; ++r)
        for (int64_t j = 0; j < m; ++j)
          for (int64_t i = 0; i < m; ++i)
            Z[static_cast<size_t>(r * m + j)] +=
                X[r * m + i] * inner[static_cast<size_t>(i * m + j)];
      return Z;
    };
    const std::vector<double> x(X, X + n * m), once = times_gram(x), twice = times_gram(once);
    for (size_t i = 0; i < x.size(); ++i)
      X[i] = 3.4445 * x[i] - 4.7750 * once[i] + 2.0315 * twice[i];
  }
}

// One step of a rule in double: p moves by lr_scale times what is returned, states a and b.
struct Double {
  std::vector<double> p, a, b;
};
void StepInDouble(const std::string& rule, const Parameter& p, int64_t t, Double* at) {
  const size_t n = at->p.size();
  const double lr = 0.01 * p.lr_scale, decay = p.decay == Decay::kYes ? 0.1 : 0;
  std::vector<double> g(n), move(n);
  for (size_t i = 0; i < n; ++i)
    g[i] = 0.5 * static_cast<double>(Bench::GradientAt(p.name, t, static_cast<int64_t>(i)));
  if (rule == "sgd") {
    for (size_t i = 0; i < n; ++i) move[i] = at->a[i] = 0.9 * at->a[i] + g[i];
  } else if (rule == "lion") {
    for (size_t i = 0; i < n; ++i) {
      const double c = 0.9 * at->a[i] + 0.1 * g[i];
      move[i] = c > 0 ? 1 : c < 0 ? -1 : 0;
      at->a[i] = 0.99 * at->a[i] + 0.01 * g[i];
    }
  } else if (rule == "muon" && (p.role == Role::kMatrix || p.role == Role::kExpert)) {
    const int64_t rows = p.shape[-2], columns = p.shape[-1];
    for (size_t i = 0; i < n; ++i) {
      at->a[i] = 0.95 * at->a[i] + g[i];
      move[i] = g[i] + 0.95 * at->a[i];
    }
    for (int64_t begin = 0; begin < static_cast<int64_t>(n); begin += rows * columns)
      Orthogonalise(rows, columns, move.data() + begin);
    for (double& x : move) x *= 0.2 * std::sqrt(static_cast<double>(std::max(rows, columns)));
  } else {
    const double made = static_cast<double>(t);
    for (size_t i = 0; i < n; ++i) {
      at->a[i] = 0.9 * at->a[i] + 0.1 * g[i];
      at->b[i] = 0.95 * at->b[i] + 0.05 * g[i] * g[i];
      move[i] = at->a[i] / (1 - std::pow(0.9, made)) /
                (std::sqrt(at->b[i] / (1 - std::pow(0.95, made))) + 1e-8);
    }
  }
  for (size_t i = 0; i < n; ++i) at->p[i] -= lr * (move[i] + decay * at->p[i]);
}

class OptimizerTest : public ::testing::TestWithParam<const char*> {};

TEST_P(OptimizerTest, MatchesItsEquationsInDouble) {
  for (const auto& [device, isa] : kEverywhere) {
    if (!SetIsa(isa)) continue;
    Bench bench(device, GetParam());
    std::vector<Double> want;
    for (const Parameter& p : bench.parameters()) {
      const float* v = p.var.data<float>();
      const std::vector<double> zero(static_cast<size_t>(p.shape.elements()));
      want.push_back({{v, v + p.shape.elements()}, zero, zero});
    }
    for (int64_t t = 1; t <= 3; ++t) {
      bench.Step(t);
      for (size_t k = 0; k < want.size(); ++k) {
        const Parameter& p = bench.parameters()[k];
        if (p.trainable) StepInDouble(GetParam(), p, t, &want[k]);
        for (size_t i = 0; i < want[k].p.size(); ++i)
          ASSERT_NEAR(p.var.data<float>()[i], want[k].p[i], 1e-6)
              << p.name << " on " << Name(device) << " " << Name(isa) << ", step " << t << ", at "
              << i;
      }
    }
  }
}

TEST_P(OptimizerTest, DoesNothingOnceHalted) {
  for (const Device device : {Device::kCpu, Device::kCuda}) {
    Bench bench(device, GetParam());
    bench.Step(1);
    const std::vector<float> before = bench.Numbers();
    bench.Step(2, 1);
    EXPECT_EQ(bench.Numbers(), before) << Name(device);
    bench.Step(2);
    EXPECT_NE(bench.Numbers(), before) << Name(device);
  }
}

TEST_P(OptimizerTest, LeavesWhatIsFrozenWithoutAState) {
  Bench bench(Device::kCpu, GetParam());
  for (const Parameter& p : bench.parameters()) {
    const std::string name = p.name;
    const auto is_its = [&](const Optimizer::State& s) { return s.name.ends_with("." + name); };
    EXPECT_EQ(std::ranges::any_of(bench.optimizer().states(), is_its), p.trainable) << name;
    EXPECT_EQ(p.var.grad() != nullptr, p.trainable) << name;
  }
  EXPECT_EQ(bench.optimizer().tensors().size(), bench.parameters().size() - 2);
}

INSTANTIATE_TEST_SUITE_P(All, OptimizerTest, ::testing::Values("adamw", "lion", "muon", "sgd"),
                         [](const auto& i) { return std::string(i.param); });

std::vector<std::string> StatesOf(const std::string& type, const std::string& parameter) {
  std::vector<std::string> names;
  const Bench bench(Device::kCpu, type);
  for (const Optimizer::State& s : bench.optimizer().states())
    if (s.name.ends_with("." + parameter)) names.push_back(s.name);
  return names;
}

// Checkpoints know them by these.
TEST(Optimizers, StatesHaveTheirNames) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(StatesOf("adamw", "wide"), (Names{"m.wide", "v.wide"}));
  EXPECT_EQ(StatesOf("lion", "wide"), (Names{"lion.wide"}));
  EXPECT_EQ(StatesOf("sgd", "wide"), (Names{"sgd.wide"}));
  EXPECT_EQ(StatesOf("muon", "experts"), (Names{"muon.experts"}));
  EXPECT_EQ(StatesOf("muon", "embedding"), (Names{"m.embedding", "v.embedding"}));
  EXPECT_EQ(StatesOf("muon", "gains"), (Names{"m.gains", "v.gains"}));
}

TEST(Optimizers, HaveNamesAndPapersOfTheirOwn) {
  std::vector<std::string> names;
  for (const OptimizerType* t : Optimizers()) {
    names.emplace_back(t->name);
    EXPECT_NE(std::string(t->paper), "");
    for (const OptimizerKey& key : t->keys) {
      OptimizerConfig config{.type = t};
      EXPECT_EQ(config.Get(key.name), key.value);
      config.given[key.name] = 0.5;
      EXPECT_EQ(config.Get(key.name), 0.5);
    }
  }
  std::ranges::sort(names);
  EXPECT_EQ(std::ranges::adjacent_find(names), names.end());
}

TEST(Schedule, WarmsUpThenFollowsItsCurve) {
  Schedule s{.kind = ScheduleKind::kCosine,
             .peak = 1,
             .final_ratio = 0.1,
             .warmup_steps = 10,
             .steps = 111};
  EXPECT_DOUBLE_EQ(s.At(0), 0.1);
  EXPECT_DOUBLE_EQ(s.At(9), 1);
  EXPECT_DOUBLE_EQ(s.At(10), 1);
  EXPECT_NEAR(s.At(60), 0.55, 1e-12);
  EXPECT_NEAR(s.At(110), 0.1, 1e-12);
  s.kind = ScheduleKind::kConstant;
  EXPECT_DOUBLE_EQ(s.At(110), 1);
  s.kind = ScheduleKind::kWsd;
  EXPECT_DOUBLE_EQ(s.At(80), 1);
  EXPECT_NEAR(s.At(110), 0.1, 1e-12);
  EXPECT_LT(s.At(100), 1);
}

}  // namespace
}  // namespace tessera
