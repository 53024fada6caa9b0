#include "tests/contract/op_case.h"

namespace tessera::testing {
namespace {

template <class R>
R ValueOf(Activation f, const R& x) {
  using std::cos;
  using std::erf;
  using std::exp;
  using std::log;
  using std::sin;
  using std::sqrt;
  const R one = 1.0;
  switch (f) {
    case Activation::kIdentity:
      return x;
    case Activation::kGelu:
      return x * R(0.5) * (one + erf(x * R(std::sqrt(0.5))));
    case Activation::kSilu:
      return x / (one + exp(R(0.0) - x));
    case Activation::kRelu2:
      return static_cast<double>(x) > 0 ? x * x : R(0.0);
    case Activation::kSigmoid:
      return one / (one + exp(R(0.0) - x));
    case Activation::kLogSigmoid:
      return R(0.0) - log(one + exp(R(0.0) - x));
    case Activation::kSoftplus:
      return log(one + exp(x));
    case Activation::kTanh:
      return one - R(2.0) / (one + exp(x + x));
    case Activation::kExp:
      return exp(x);
    case Activation::kLog:
      return log(x);
    case Activation::kRelu:
      return static_cast<double>(x) > 0 ? x : R(0.0);
    case Activation::kEluPlusOne:
      return static_cast<double>(x) > 0 ? x + one : exp(x);
    case Activation::kSin:
      return sin(x);
    case Activation::kCos:
      return cos(x);
    case Activation::kSqrt:
      return sqrt(x);
    case Activation::kAbs:
      return static_cast<double>(x) < 0 ? R(0.0) - x : x;
    case Activation::kSquare:
      return x * x;
    case Activation::kReciprocal:
      return one / x;
  }
  return x;
}

bool NeedsPositive(Activation f) {
  return f == Activation::kLog || f == Activation::kSqrt || f == Activation::kReciprocal;
}

OpCase ActivationCase(Activation f, int64_t B, int64_t T, int64_t C, double scale) {
  OpCase c;
  c.name = std::string(Name(f)) + "_" + std::to_string(C);
  c.inputs = {{.name = "x", .shape = {B, T, C}, .value = NormalValues(3)}};
  if (NeedsPositive(f)) c.inputs[0].value = UniformValues(0.1, 9);
  c.run = [=](Context& ctx, const std::vector<Var>& in) {
    return std::vector<Var>{Activate(ctx, f, in[0], static_cast<float>(scale))};
  };
  c.SetReference([=](const auto& in) {
    using R = ScalarOf<decltype(in)>;
    Array<R> y(in[0].shape);
    for (size_t i = 0; i < y.v.size(); ++i) y.v[i] = R(scale) * ValueOf(f, in[0].v[i]);
    return std::vector<Array<R>>{y};
  });
  return c;
}

OpCase GatedCase(Activation f, int64_t B, int64_t T, int64_t C) {
  OpCase c;
  c.name = "gated_" + std::string(Name(f)) + "_" + std::to_string(C);
  c.inputs = {{.name = "g", .shape = {B, T, C}, .value = NormalValues(2)},
              {.name = "u", .shape = {B, T, C}}};
  if (NeedsPositive(f)) c.inputs[0].value = UniformValues(0.1, 9);
  // 1/u times u, where both inputs are one, has no gradient; 1/u times u^2 has.
  const bool square = f == Activation::kReciprocal;
  c.run = [=](Context& ctx, const std::vector<Var>& in) {
    return std::vector<Var>{
        Gated(ctx, f, in[0], square ? Activate(ctx, Activation::kSquare, in[1]) : in[1])};
  };
  c.SetReference([=](const auto& in) {
    using R = ScalarOf<decltype(in)>;
    Array<R> y(in[0].shape);
    for (size_t i = 0; i < y.v.size(); ++i) {
      const R& u = in[1].v[i];
      y.v[i] = ValueOf(f, in[0].v[i]) * (square ? u * u : u);
    }
    return std::vector<Array<R>>{y};
  });
  return c;
}

// The halves of one projection: gradients land in it.
OpCase SwigluOfHalves() {
  OpCase c;
  c.name = "swiglu_of_halves";
  const int64_t rows = 7, F = 21;
  c.inputs = {{.name = "gu", .shape = {1, rows, 2 * F}}};
  c.run = [=](Context& ctx, const std::vector<Var>& in) {
    const int64_t widths[] = {F, F};
    const std::vector<Var> halves = Split(ctx, in[0], widths);
    return std::vector<Var>{Gated(ctx, Activation::kSilu, halves[0], halves[1])};
  };
  c.SetReference([=](const auto& in) {
    using R = ScalarOf<decltype(in)>;
    Array<R> y({1, rows, F});
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < F; ++i)
        y[r * F + i] = ValueOf(Activation::kSilu, in[0][r * 2 * F + i]) * in[0][r * 2 * F + F + i];
    return std::vector<Array<R>>{y};
  });
  return c;
}

OpCase AddCase(const std::string& name, int64_t C, double scale, bool with_itself) {
  OpCase c;
  c.name = name;
  c.inputs = {{.name = "x", .shape = {2, 3, C}}};
  if (!with_itself) c.inputs.push_back({.name = "f", .shape = {2, 3, C}});
  c.run = [=](Context& ctx, const std::vector<Var>& in) {
    return std::vector<Var>{Add(ctx, in[0], in.back(), static_cast<float>(scale))};
  };
  c.SetReference([=](const auto& in) {
    using R = ScalarOf<decltype(in)>;
    Array<R> y(in[0].shape);
    for (size_t i = 0; i < y.v.size(); ++i) y.v[i] = in[0].v[i] + R(scale) * in.back().v[i];
    return std::vector<Array<R>>{y};
  });
  return c;
}

std::vector<OpCase> PointwiseCases() {
  std::vector<OpCase> cases = {SwigluOfHalves(), AddCase("add_one", 1, 1, false),
                               AddCase("add", 37, 1, false), AddCase("add_scaled", 37, 0.25, false),
                               AddCase("add_itself", 19, 0.5, true)};
  for (const Activation f : kActivations) {
    cases.push_back(ActivationCase(f, 1, 1, 1, 1));
    cases.push_back(ActivationCase(f, 2, 17, 37, 0.5));
    cases.push_back(GatedCase(f, 1, 1, 1));
    cases.push_back(GatedCase(f, 2, 17, 37));
  }
  return cases;
}

}  // namespace

TESSERA_OP_CASES(Pointwise, PointwiseCases());

}  // namespace tessera::testing
