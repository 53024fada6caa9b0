#include <algorithm>
#include <cmath>

#include "core/parallel.h"
#include "kernels/simt/block.h"
#include "kernels/simt/launch.h"
#include "tests/contract/op_run.h"
#include "tests/device/test_gpu.h"

namespace tessera::testing {
namespace {

// The reference's own derivative against a central difference along one random direction an input.
void CheckFiniteDifferences(const OpCase& c, const Reference& r, const std::vector<DType>& types) {
  const std::vector<Array<double>> inputs = MakeInputs(c, DType::kF32);
  const auto cotangents = Cotangents(c, c.reference(inputs), types);
  const auto objective = [&](const std::vector<Array<double>>& at) {
    double sum = 0;
    const auto outputs = c.reference(at);
    for (size_t o = 0; o < outputs.size(); ++o)
      for (size_t i = 0; i < outputs[o].v.size(); ++i) sum += cotangents[o][i] * outputs[o].v[i];
    return sum;
  };
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (r.grads[i].empty()) continue;
    const double step = 1e-5;
    const Rng rng(13, c.name + "/direction" + std::to_string(i));
    std::vector<Array<double>> plus = inputs, minus = inputs;
    double want = 0, scale = 0;
    for (size_t j = 0; j < inputs[i].v.size(); ++j) {
      const double d = rng.Normal(j);
      plus[i].v[j] += step * d;
      minus[i].v[j] -= step * d;
      want += r.grads[i][j] * d;
      scale += r.grads[i][j] * r.grads[i][j];
    }
    const double got = (objective(plus) - objective(minus)) / (2 * step);
    EXPECT_NEAR(got, want, 1e-4 * (std::sqrt(scale) + std::fabs(want)) + 1e-6)
        << c.name << ": the reference's derivative for '" << c.inputs[i].name
        << "' is not its slope";
  }
}

void ExpectClose(const std::string& what, const std::vector<double>& got,
                 const std::vector<double>& want, double rms, double worst) {
  ASSERT_EQ(got.size(), want.size()) << what;
  const Distance d = Compare(got, want);
  const size_t at = static_cast<size_t>(d.worst_at);
  EXPECT_LE(d.rms, rms) << what << ": rms ratio; worst at " << at << ": got "
                        << (got.empty() ? 0 : got[at]) << ", want "
                        << (want.empty() ? 0 : want[at]);
  EXPECT_LE(d.worst, worst) << what << ": worst element at " << at << ": got "
                            << (got.empty() ? 0 : got[at]) << ", want "
                            << (want.empty() ? 0 : want[at]);
}

void CheckNumbers(const OpCase& c, const std::string& where, const Setup& setup, const Outcome& got,
                  const Reference& want) {
  const bool half = setup.compute == DType::kBF16;
  ASSERT_EQ(got.outputs.size(), want.outputs.size()) << c.name << ": outputs and extra losses";
  for (size_t o = 0; o < want.outputs.size(); ++o)
    ExpectClose(c.name + where + " output " + std::to_string(o), got.outputs[o], want.outputs[o],
                half ? c.bars.bf16_rms : c.bars.fp32_rms, half ? 1e9 : c.bars.fp32_worst);
  for (size_t i = 0; i < want.grads.size(); ++i) {
    if (want.grads[i].empty() || (setup.only >= 0 && setup.only != static_cast<int>(i))) continue;
    std::vector<double> grad = want.grads[i];
    if (StartsAtOne(c.inputs[i], setup))
      for (double& g : grad) g += 1;
    if (setup.parts != Parts::kNone && c.inputs[i].kind == Kind::kActivation)
      grad = WithOthers(c, i, grad, setup.beside[i]);
    ExpectClose(c.name + where + " gradient of " + c.inputs[i].name, got.grads[i], grad,
                half ? c.bars.bf16_grad_rms : c.bars.fp32_grad_rms,
                half ? 1e9 : c.bars.fp32_grad_worst);
  }
}

// Every pair of differentiable inputs of one shape and type, in rounds in which no input is in two
// pairs: each group of like inputs plays its own tournament.
std::vector<std::vector<Pair>> AliasRounds(const OpCase& c) {
  std::vector<std::vector<Pair>> rounds;
  std::vector<bool> grouped(c.inputs.size());
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    std::vector<size_t> group;
    for (size_t j = i; j < c.inputs.size(); ++j)
      if (!grouped[j] && Wanted(c.inputs[i]) && Wanted(c.inputs[j]) &&
          c.inputs[i].kind == c.inputs[j].kind && c.inputs[i].shape == c.inputs[j].shape) {
        grouped[j] = true;
        group.push_back(j);
      }
    // One stays, the others move on by one place a round; an odd group has a place for none.
    const size_t n = group.size() + group.size() % 2;
    for (size_t round = 0; round + 1 < n; ++round) {
      if (rounds.size() <= round) rounds.emplace_back();
      const auto at = [&](size_t place) {
        return place == 0 ? size_t{0} : 1 + (place - 1 + round) % (n - 1);
      };
      for (size_t place = 0; place < n / 2; ++place) {
        const size_t a = at(place), b = at(n - 1 - place);
        if (a < group.size() && b < group.size())
          rounds[round].push_back({group[std::min(a, b)], group[std::max(a, b)]});
      }
    }
  }
  return rounds;
}

// As parts of wholes that others use, written and added to, and one value as two inputs.
void CheckSharedInputs(const OpCase& c, const std::string& on, Device device,
                       const std::vector<DType>& types, const Reference& want) {
  std::vector<double> sizes;
  for (const std::vector<double>& g : want.grads) {
    double square = 0;
    for (const double v : g) square += v * v;
    sizes.push_back(square > 0 ? std::sqrt(square / static_cast<double>(g.size())) : 1);
  }
  for (const Parts parts : {Parts::kEvenBefore, Parts::kOddBefore}) {
    const Setup setup{.parts = parts, .beside = sizes};
    CheckNumbers(
        c,
        on + (parts == Parts::kEvenBefore ? " (whole and part, even)" : " (whole and part, odd)"),
        setup, RunCase(c, device, setup), want);
  }
  for (const std::vector<Pair>& pairs : AliasRounds(c)) {
    std::string names;
    for (const auto& [a, b] : pairs) names += " " + c.inputs[a].name + "=" + c.inputs[b].name;
    const Setup setup{.aliases = pairs};
    CheckNumbers(c, on + " (alias" + names + ")", setup, RunCase(c, device, setup),
                 RunReference(c, DType::kF32, types, pairs));
  }
}

}  // namespace

Distance Compare(const std::vector<double>& got, const std::vector<double>& want) {
  double error = 0, norm = 0, worst = 0, largest = 0;
  int64_t at = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double e = std::isfinite(got[i]) ? std::fabs(got[i] - want[i]) : INFINITY;
    error += e * e;
    norm += want[i] * want[i];
    largest = std::max(largest, std::fabs(want[i]));
    if (e > worst) {
      worst = e;
      at = static_cast<int64_t>(i);
    }
  }
  if (error == 0) return {0, 0, 0};
  // A reference that is zero everywhere is judged absolutely.
  return {std::sqrt(error / std::max(norm, 1e-16 * static_cast<double>(want.size()))),
          worst / std::max(largest, 1e-8), at};
}

void CheckOpCase(const OpCase& c) {
  const Isa isa_before = ActiveIsa();
  const int threads_before = Threads();
  const std::vector<DType> types = OutputTypes(c, DType::kF32);
  const Reference want = RunReference(c, DType::kF32, types);
  if (c.finite_differences) CheckFiniteDifferences(c, want, types);
  for (const Isa isa : {Isa::kAvx2, Isa::kAvx512}) {
    if (!SetIsa(isa)) continue;
    const std::string on = std::string(" on ") + Name(isa);
    SetThreads(1);
    const Outcome first = RunCase(c, Device::kCpu, {});
    CheckNumbers(c, on, {}, first, want);
    for (const int threads : {2, 3, 4, 8}) {
      SetThreads(threads);
      const Outcome again = RunCase(c, Device::kCpu, {});
      EXPECT_EQ(first.outputs, again.outputs) << c.name << on << ", threads: " << threads;
      EXPECT_EQ(first.grads, again.grads) << c.name << on << ", threads: " << threads;
    }
    SetThreads(2);
    CheckSharedInputs(c, on, Device::kCpu, types, want);
    for (int i = 0; i < static_cast<int>(c.inputs.size()); ++i) {
      if (want.grads[static_cast<size_t>(i)].empty()) continue;
      const Setup alone{.only = i};
      CheckNumbers(c, on + " (alone)", alone, RunCase(c, Device::kCpu, alone), want);
    }
    const Outcome meta = RunCase(c, Device::kMeta, {});
    EXPECT_EQ(meta.forward.flops, first.forward.flops) << c.name;
    EXPECT_EQ(meta.forward.bytes, first.forward.bytes) << c.name;
    EXPECT_EQ(meta.backward.flops, first.backward.flops) << c.name;
    EXPECT_EQ(meta.backward.bytes, first.backward.bytes) << c.name;
    EXPECT_GT(first.forward.bytes + first.backward.bytes, 0) << c.name << " counts no bytes";
    if (c.bf16) {
      const Setup half{.compute = DType::kBF16};
      const Reference want_half = RunReference(c, DType::kBF16, OutputTypes(c, DType::kBF16));
      CheckNumbers(c, on + " in bf16", half, RunCase(c, Device::kCpu, half), want_half);
    }
  }
  SetIsa(isa_before);
  SetThreads(threads_before);
}

void CheckOpCaseOnSimt(const OpCase& c) {
  const std::vector<DType> types = OutputTypes(c, DType::kF32);
  const Reference want = RunReference(c, DType::kF32, types);
  constexpr simt::Order kOrders[] = {simt::Order::kForward, simt::Order::kReverse,
                                     simt::Order::kRandom, simt::Order::kWarps};
  Outcome first;
  for (const simt::Order order : kOrders) {
    simt::SetOrder(order, 17);
    const std::string name = std::string(", order ") + simt::Name(order);
    const Outcome got = RunCase(c, Device::kCuda, {});
    CheckNumbers(c, name, {}, got, want);
    if (order == simt::Order::kForward) first = got;
    EXPECT_EQ(first.outputs, got.outputs) << c.name << name;
    EXPECT_EQ(first.grads, got.grads) << c.name << name;
    if (simt::ReportsRaces() || RealGpu()) break;
  }
  if (c.bf16) {
    const Setup half{.compute = DType::kBF16};
    const Reference want_half = RunReference(c, DType::kBF16, OutputTypes(c, DType::kBF16));
    CheckNumbers(c, " in bf16", half, RunCase(c, Device::kCuda, half), want_half);
    for (const simt::Order order : kOrders) {
      if (!c.grouped || !HasWgmma()) break;
      const ScopedWgmma always("always");
      simt::SetOrder(order, 23);
      CheckNumbers(c, std::string(" by warpgroups, order ") + simt::Name(order), half,
                   RunCase(c, Device::kCuda, half), want_half);
      if (simt::ReportsRaces() || RealGpu()) break;
    }
  }
  simt::SetOrder(simt::Order::kForward);
  if (simt::ReportsRaces()) return;
  CheckSharedInputs(c, "", Device::kCuda, types, want);
  for (int i = 0; i < static_cast<int>(c.inputs.size()); ++i) {
    if (want.grads[static_cast<size_t>(i)].empty()) continue;
    const Setup alone{.only = i};
    CheckNumbers(c, " (alone)", alone, RunCase(c, Device::kCuda, alone), want);
  }
}

TEST_P(OpContract, Holds) { CheckOpCase(GetParam()); }
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(OpContract);

TEST_P(SimtOpContract, Holds) {
  try {
    CheckOpCaseOnSimt(GetParam());
  } catch (const simt::Error& e) {
    FAIL() << e.what();
  } catch (const CudaError& e) {
    FAIL() << e.what();
  }
}
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(SimtOpContract);

std::function<double(const Rng&, int64_t)> NormalValues(double deviation, double mean) {
  return [=](const Rng& rng, int64_t i) {
    return mean + deviation * rng.Normal(static_cast<uint64_t>(i));
  };
}

std::function<double(const Rng&, int64_t)> UniformValues(double low, double high) {
  return [=](const Rng& rng, int64_t i) {
    return low + (high - low) * rng.Uniform(static_cast<uint64_t>(i));
  };
}

std::function<double(const Rng&, int64_t)> IntsBelow(int64_t n) {
  return [=](const Rng& rng, int64_t i) {
    return static_cast<double>(rng.Below(static_cast<uint64_t>(i), static_cast<uint64_t>(n)));
  };
}

std::function<double(const Rng&, int64_t)> TheseValues(std::vector<double> values) {
  return [=](const Rng&, int64_t i) { return values.at(static_cast<size_t>(i)); };
}

std::function<double(const Rng&, int64_t)> Starts(int64_t T, std::vector<int64_t> starts,
                                                  int64_t behind) {
  return [=](const Rng&, int64_t i) {
    int64_t start = -behind;
    for (const int64_t s : starts)
      if (s <= i % T) start = s;
    return static_cast<double>(start);
  };
}

}  // namespace tessera::testing
