#include <algorithm>
#include <cstring>

#include "core/parallel.h"
#include "kernels/simt/block.h"
#include "kernels/simt/launch.h"
#include "tests/op_case.h"
#include "tests/test_gpu.h"

namespace tessera::testing {
namespace {

constexpr int64_t kArenaBytes = int64_t{2} << 30;

// How one run is made.
struct Setup {
  DType compute = DType::kF32;
  bool strided = false;     // activations are columns of wider rows, the rest NaN
  bool accumulate = false;  // gradients start at 1 and are added to (fp32)
  int only = -1;            // this input alone wants a gradient
};

struct Outcome {
  std::vector<std::vector<double>> outputs, grads;  // grads by input, empty where not wanted
  Cost forward, backward;
  int64_t peak_bytes = 0;
};

DType TypeOf(const Input& in, DType compute) {
  return in.kind == Kind::kInt ? DType::kI32 : (in.kind == Kind::kFloat ? DType::kF32 : compute);
}

double Rounded(double v, DType t) {
  if (t == DType::kBF16) return static_cast<float>(bf16(static_cast<float>(v)));
  return t == DType::kF32 ? static_cast<double>(static_cast<float>(v)) : v;
}

std::vector<Array<double>> MakeInputs(const OpCase& c, DType compute) {
  std::vector<Array<double>> arrays;
  for (const Input& in : c.inputs) {
    const Rng rng(7, c.name + "/" + in.name);
    Array<double> a(in.shape);
    const auto value = in.value ? in.value : NormalValues(1);
    for (int64_t i = 0; i < in.shape.elements(); ++i)
      a[i] = Rounded(value(rng, i), TypeOf(in, compute));
    arrays.push_back(std::move(a));
  }
  return arrays;
}

void Put(const Tensor& t, const std::vector<double>& v) {
  if (t.raw() == nullptr) return;
  const int64_t C = t.shape().rank() == 0 ? 1 : t.dim(-1);
  for (int64_t i = 0; i < t.elements(); ++i) {
    const int64_t at = i / C * t.stride() + i % C;
    const double x = v[static_cast<size_t>(i)];
    switch (t.dtype()) {
      case DType::kF32:
        t.data<float>()[at] = static_cast<float>(x);
        break;
      case DType::kBF16:
        t.data<bf16>()[at] = bf16(static_cast<float>(x));
        break;
      default:
        t.data<int32_t>()[at] = static_cast<int32_t>(x);
        break;
    }
  }
}

std::vector<double> Take(const Tensor& t) {
  std::vector<double> v;
  if (!t.defined() || t.raw() == nullptr) return v;
  const int64_t C = t.shape().rank() == 0 ? 1 : t.dim(-1);
  for (int64_t i = 0; i < t.elements(); ++i) {
    const int64_t at = i / C * t.stride() + i % C;
    v.push_back(t.dtype() == DType::kF32
                    ? static_cast<double>(t.data<float>()[at])
                    : static_cast<double>(static_cast<float>(t.data<bf16>()[at])));
  }
  return v;
}

double CotangentAt(const OpCase& c, size_t output, int64_t i, DType t) {
  return Rounded(
      Rng(11, c.name + "/cotangent" + std::to_string(output)).Normal(static_cast<uint64_t>(i)), t);
}

Outcome RunCase(const OpCase& c, Device device, const Setup& setup) {
  Arena arena(device == Device::kMeta ? Arena::Memory{} : TouchableMemory(device, kArenaBytes),
              device == Device::kMeta ? Arena::Backing::kMeta : Arena::Backing::kPoisoned);
  CostCounter counter;
  std::map<std::string, ExtraLoss> losses;
  Context ctx(device, &arena);
  ctx.compute = setup.compute;
  ctx.training = true;
  ctx.counter = &counter;
  ctx.extra_losses = &losses;
  ctx.SetRecording(true);
  Outcome out;
  {
    const std::vector<Array<double>> values = MakeInputs(c, setup.compute);
    std::vector<Var> inputs;
    for (size_t i = 0; i < c.inputs.size(); ++i) {
      const Input& in = c.inputs[i];
      const DType t = TypeOf(in, setup.compute);
      const bool strided = setup.strided && in.kind == Kind::kActivation && in.shape.rank() > 0;
      Shape wide = in.shape;
      if (strided) wide.Set(-1, in.shape[-1] + 5);
      Tensor tensor = ctx.New(wide, t);
      if (strided) tensor = tensor.Slice(3, in.shape[-1]);
      Put(tensor, values[i].v);
      const bool wanted = in.wants_grad && in.kind != Kind::kInt &&
                          (setup.only < 0 || setup.only == static_cast<int>(i));
      inputs.push_back(wanted ? Leaf(tensor) : Var(tensor));
      if (wanted && setup.accumulate) {
        const GradSlot slot = ctx.GradOf(inputs.back());
        Put(slot.tensor, std::vector<double>(static_cast<size_t>(in.shape.elements()), 1.0));
      }
    }
    std::vector<Var> outputs = c.run(ctx, inputs);
    Wait(device, Mark(device));
    std::vector<std::pair<Var, Tensor>> seeds;
    for (size_t o = 0; o < outputs.size(); ++o) {
      out.outputs.push_back(Take(outputs[o].value()));
      Tensor seed = ctx.New(outputs[o].shape(), outputs[o].dtype());
      std::vector<double> cotangent;
      for (int64_t i = 0; i < seed.elements(); ++i)
        cotangent.push_back(CotangentAt(c, o, i, seed.dtype()));
      Put(seed, cotangent);
      seeds.emplace_back(outputs[o], seed);
    }
    for (const auto& [name, loss] : losses) {
      std::vector<double> v = Take(loss.value);
      for (double& x : v) x *= loss.coefficient;
      out.outputs.push_back(v);
    }
    outputs.clear();
    ctx.Backward(seeds);
    Wait(device, Mark(device));
    for (const Var& in : inputs)
      out.grads.push_back(in.grad() != nullptr && in.grad()->started ? Take(in.grad()->grad)
                                                                     : std::vector<double>());
  }
  out.forward = counter.Total().forward;
  out.backward = counter.Total().backward;
  out.peak_bytes = arena.peak_bytes();
  return out;
}

struct Reference {
  std::vector<std::vector<double>> outputs, grads;
};

// Cotangents of outputs as the run rounds them; those of extra losses are 1 (coefficients are in
// the reference).
std::vector<std::vector<double>> Cotangents(const OpCase& c,
                                            const std::vector<Array<double>>& outputs,
                                            const std::vector<DType>& types) {
  std::vector<std::vector<double>> all;
  for (size_t o = 0; o < outputs.size(); ++o) {
    all.emplace_back();
    for (int64_t i = 0; i < outputs[o].shape.elements(); ++i)
      all.back().push_back(o < types.size() ? CotangentAt(c, o, i, types[o]) : 1.0);
  }
  return all;
}

Reference RunReference(const OpCase& c, DType compute, const std::vector<DType>& types) {
  const std::vector<Array<double>> inputs = MakeInputs(c, compute);
  const std::vector<Array<double>> outputs = c.reference(inputs);
  const auto cotangents = Cotangents(c, outputs, types);
  Reference r;
  for (const auto& o : outputs) r.outputs.push_back(o.v);
  Real::Clear();
  std::vector<Array<Real>> variables;
  for (size_t i = 0; i < inputs.size(); ++i) {
    Array<Real> a(inputs[i].shape);
    const bool wanted = c.inputs[i].wants_grad && c.inputs[i].kind != Kind::kInt;
    for (size_t j = 0; j < a.v.size(); ++j)
      a.v[j] = wanted ? Real::Variable(inputs[i].v[j]) : Real(inputs[i].v[j]);
    variables.push_back(std::move(a));
  }
  std::vector<Real> flat;
  std::vector<double> weights;
  const auto real_outputs = c.reference_real(variables);
  for (size_t o = 0; o < real_outputs.size(); ++o)
    for (size_t i = 0; i < real_outputs[o].v.size(); ++i) {
      flat.push_back(real_outputs[o].v[i]);
      weights.push_back(cotangents[o][i]);
    }
  const std::vector<double> g = Real::Gradients(flat, weights);
  for (const auto& a : variables) {
    r.grads.emplace_back();
    for (const Real& x : a.v)
      if (x.id() >= 0) r.grads.back().push_back(g[static_cast<size_t>(x.id())]);
  }
  Real::Clear();
  return r;
}

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
    if (setup.accumulate)
      for (double& g : grad) g += 1;
    ExpectClose(c.name + where + " gradient of " + c.inputs[i].name, got.grads[i], grad,
                half ? c.bars.bf16_grad_rms : c.bars.fp32_grad_rms,
                half ? 1e9 : c.bars.fp32_grad_worst);
  }
}

std::vector<DType> OutputTypes(const OpCase& c, DType compute) {
  Arena arena(Arena::Backing::kMeta, 1);
  Context ctx(Device::kMeta, &arena);
  ctx.compute = compute;
  ctx.training = true;
  std::vector<Var> inputs;
  for (const Input& in : c.inputs) inputs.push_back(Var(ctx.New(in.shape, TypeOf(in, compute))));
  std::vector<DType> types;
  for (const Var& v : c.run(ctx, inputs)) types.push_back(v.dtype());
  return types;
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
    const Setup strided{.strided = true};
    CheckNumbers(c, on + " (strided)", strided, RunCase(c, Device::kCpu, strided), want);
    const Setup accumulate{.accumulate = true};
    CheckNumbers(c, on + " (accumulating)", accumulate, RunCase(c, Device::kCpu, accumulate), want);
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
  const Reference want = RunReference(c, DType::kF32, OutputTypes(c, DType::kF32));
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
      if (RealGpu() || !c.grouped) break;
      simt::SetOrder(order, 23);
      simt::WgmmaAtAnySize() = true;
      CheckNumbers(c, std::string(" by warpgroups, order ") + simt::Name(order), half,
                   RunCase(c, Device::kCuda, half), want_half);
      simt::WgmmaAtAnySize() = false;
      if (simt::ReportsRaces()) break;
    }
  }
  simt::SetOrder(simt::Order::kForward);
  if (simt::ReportsRaces()) return;
  const Setup strided{.strided = true};
  CheckNumbers(c, " (strided)", strided, RunCase(c, Device::kCuda, strided), want);
  const Setup accumulate{.accumulate = true};
  CheckNumbers(c, " (accumulating)", accumulate, RunCase(c, Device::kCuda, accumulate), want);
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

std::function<double(const Rng&, int64_t)> Positions(int64_t T, std::vector<int64_t> starts,
                                                     int64_t first) {
  return [=](const Rng&, int64_t i) {
    const int64_t t = i % T;
    int64_t position = first + t;
    for (const int64_t s : starts)
      if (s <= t) position = t - s;
    return static_cast<double>(position);
  };
}

}  // namespace tessera::testing
