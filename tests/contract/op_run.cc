#include "tests/contract/op_run.h"

#include "tests/device/test_gpu.h"

namespace tessera::testing {
namespace {

constexpr int64_t kArenaBytes = int64_t{2} << 30;

DType TypeOf(const Input& in, DType compute) {
  return in.kind == Kind::kInt ? DType::kI32 : (in.kind == Kind::kFloat ? DType::kF32 : compute);
}

double Rounded(double v, DType t) {
  if (t == DType::kBF16) return static_cast<float>(bf16(static_cast<float>(v)));
  return t == DType::kF32 ? static_cast<double>(static_cast<float>(v)) : v;
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

// The cotangent of what another user makes of a whole or of its first part.
std::vector<double> CotangentBeside(const OpCase& c, const char* what, size_t input, int64_t n,
                                    double size) {
  const Rng rng(11, c.name + "/" + what + std::to_string(input));
  std::vector<double> v;
  for (int64_t i = 0; i < n; ++i)
    v.push_back(Rounded(size * rng.Normal(static_cast<uint64_t>(i)), DType::kF32));
  return v;
}

// The other users of a value whose middle part is an input.
struct Beside {
  size_t input;
  Var whole, left;
};

}  // namespace

std::vector<Array<double>> MakeInputs(const OpCase& c, DType compute,
                                      const std::vector<Pair>& aliases) {
  std::vector<Array<double>> arrays;
  for (const Input& in : c.inputs) {
    const Rng rng(7, c.name + "/" + in.name);
    Array<double> a(in.shape);
    const auto value = in.value ? in.value : NormalValues(1);
    for (int64_t i = 0; i < in.shape.elements(); ++i)
      a[i] = Rounded(value(rng, i), TypeOf(in, compute));
    arrays.push_back(std::move(a));
  }
  // Values of one input's own kind, log gates say, are chosen before any.
  for (const auto& [first, second] : aliases) {
    const size_t own = c.inputs[second].value ? second : first;
    Array<double>& shared = arrays[own];
    for (double& v : shared.v) v = Rounded(c.alias_scale * v, TypeOf(c.inputs[own], compute));
    arrays[first] = arrays[second] = Array<double>(shared);
  }
  return arrays;
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
    const std::vector<Array<double>> values = MakeInputs(c, setup.compute, setup.aliases);
    std::vector<Var> inputs, leaves;
    std::vector<Beside> beside;
    std::vector<std::pair<Var, Tensor>> seeds;
    const auto seed = [&](const Var& output, const std::vector<double>& cotangent) {
      const Tensor t = ctx.New(output.shape(), output.dtype());
      Put(t, cotangent);
      seeds.emplace_back(output, t);
    };
    const auto use = [&](const Beside& b, bool part_first) {
      const auto part = [&] {
        const Var y = Scale(ctx, b.left, 1);
        seed(y, CotangentBeside(c, "left", b.input, y.value().elements(), setup.beside[b.input]));
      };
      if (part_first) part();
      const Var y = Scale(ctx, b.whole, kOfWhole);
      seed(y, CotangentBeside(c, "whole", b.input, y.value().elements(), setup.beside[b.input]));
      if (!part_first) part();
    };
    for (size_t i = 0; i < c.inputs.size(); ++i) {
      const Input& in = c.inputs[i];
      const DType t = TypeOf(in, setup.compute);
      const bool part = setup.parts != Parts::kNone && in.kind == Kind::kActivation;
      Shape wide = in.shape;
      if (part) wide.Set(-1, kLeft + in.shape[-1] + kRight);
      const Tensor tensor = ctx.New(wide, t);
      Put(part ? tensor.Slice(kLeft, in.shape[-1]) : tensor, values[i].v);
      const bool wanted = Wanted(in) && (setup.only < 0 || setup.only == static_cast<int>(i));
      leaves.push_back(wanted ? Leaf(tensor) : Var(tensor));
      if (part) {
        const int64_t widths[] = {kLeft, in.shape[-1], kRight};
        const std::vector<Var> parts = Split(ctx, leaves[i], widths);
        inputs.push_back(parts[1]);
        if (wanted) beside.push_back({i, leaves[i], parts[0]});
      } else {
        inputs.push_back(leaves[i]);
      }
      if (wanted && StartsAtOne(in, setup)) {
        const GradSlot slot = ctx.GradOf(inputs.back());
        Put(slot.tensor, std::vector<double>(static_cast<size_t>(in.shape.elements()), 1.0));
      }
    }
    for (const auto& [first, second] : setup.aliases) inputs[second] = inputs[first];
    const auto before = [&](const Beside& b) {
      return (b.input % 2 == 0) == (setup.parts == Parts::kEvenBefore);
    };
    for (const Beside& b : beside)
      if (before(b)) use(b, true);
    std::vector<Var> outputs = c.run(ctx, inputs);
    for (const Beside& b : beside)
      if (!before(b)) use(b, false);
    beside.clear();
    Wait(device, Mark(device));
    for (size_t o = 0; o < outputs.size(); ++o) {
      out.outputs.push_back(Take(outputs[o].value()));
      std::vector<double> cotangent;
      for (int64_t i = 0; i < outputs[o].value().elements(); ++i)
        cotangent.push_back(CotangentAt(c, o, i, outputs[o].dtype()));
      seed(outputs[o], cotangent);
    }
    for (const auto& [name, loss] : losses) {
      std::vector<double> v = Take(loss.value);
      for (double& x : v) x *= loss.coefficient;
      out.outputs.push_back(v);
    }
    outputs.clear();
    ctx.Backward(seeds);
    Wait(device, Mark(device));
    for (const Var& in : leaves)
      out.grads.push_back(in.grad() != nullptr && in.grad()->started ? Take(in.grad()->grad)
                                                                     : std::vector<double>());
  }
  out.forward = counter.Total().forward;
  out.backward = counter.Total().backward;
  out.peak_bytes = arena.peak_bytes();
  return out;
}

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

Reference RunReference(const OpCase& c, DType compute, const std::vector<DType>& types,
                       const std::vector<Pair>& aliases) {
  const std::vector<Array<double>> inputs = MakeInputs(c, compute, aliases);
  const std::vector<Array<double>> outputs = c.reference(inputs);
  const auto cotangents = Cotangents(c, outputs, types);
  Reference r;
  for (const auto& o : outputs) r.outputs.push_back(o.v);
  Real::Clear();
  std::vector<Array<Real>> variables;
  for (size_t i = 0; i < inputs.size(); ++i) {
    Array<Real> a(inputs[i].shape);
    const bool wanted = Wanted(c.inputs[i]);
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
  for (const auto& [first, second] : aliases) {
    for (size_t j = 0; j < r.grads[first].size(); ++j) r.grads[first][j] += r.grads[second][j];
    r.grads[second].clear();
  }
  return r;
}

std::vector<double> WithOthers(const OpCase& c, size_t i, const std::vector<double>& own,
                               double size) {
  const int64_t C = c.inputs[i].shape[-1], wide = kLeft + C + kRight,
                rows = static_cast<int64_t>(own.size()) / C;
  std::vector<double> all = CotangentBeside(c, "whole", i, rows * wide, size);
  const std::vector<double> left = CotangentBeside(c, "left", i, rows * kLeft, size);
  for (int64_t j = 0; j < rows * wide; ++j) {
    const int64_t r = j / wide, column = j % wide;
    double& v = all[static_cast<size_t>(j)];
    v *= static_cast<double>(kOfWhole);
    if (column < kLeft) v += left[static_cast<size_t>(r * kLeft + column)];
    if (column >= kLeft && column < kLeft + C)
      v += own[static_cast<size_t>(r * C + column - kLeft)];
  }
  return all;
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

}  // namespace tessera::testing
