#include "tests/contract/op_case.h"

namespace tessera::testing {
namespace {

struct Sizes {
  int64_t B, T, G, W;
};

// By logarithms: y = exp(s x - log(sum of exp(s x))).
template <class R>
Array<R> SoftmaxReference(const Sizes& s, double scale, Mask mask, const Array<R>& x,
                          const std::vector<double>& low, const std::vector<double>& high) {
  using std::exp;
  using std::log;
  Array<R> y(Shape{s.B, s.T, s.G * s.W});
  for (int64_t i = 0; i < s.B * s.T * s.G; ++i) {
    const int64_t row = i / s.G;
    const auto sees = [&](int64_t c) {
      const double at = static_cast<double>(c);
      return (low.empty() || at >= low[static_cast<size_t>(row)]) &&
             (high.empty() || at < high[static_cast<size_t>(row)]) &&
             (mask == Mask::kNone || c <= row % s.T);
    };
    R sum = 0.0;
    for (int64_t c = 0; c < s.W; ++c)
      if (sees(c)) sum += exp(R(scale) * x[i * s.W + c]);
    for (int64_t c = 0; c < s.W; ++c)
      y[i * s.W + c] = sees(c) ? exp(R(scale) * x[i * s.W + c] - log(sum)) : R(0.0);
  }
  return y;
}

OpCase SoftmaxCase(const std::string& name, const Sizes& s, double scale = 1,
                   Mask mask = Mask::kNone, const std::vector<double>& low = {},
                   const std::vector<double>& high = {}) {
  const Shape rows{s.B, s.T};
  OpCase c{.name = name, .inputs = {{.name = "x", .shape = {s.B, s.T, s.G * s.W}}}};
  if (!low.empty()) c.inputs.push_back({"low", rows, Kind::kInt, TheseValues(low)});
  if (!high.empty()) c.inputs.push_back({"high", rows, Kind::kInt, TheseValues(high)});
  c.run = [=](Context& ctx, const std::vector<Var>& in) {
    return std::vector<Var>{Softmax(ctx, in[0],
                                    {.groups = s.G,
                                     .scale = static_cast<float>(scale),
                                     .mask = mask,
                                     .low = low.empty() ? Tensor() : in[1].value(),
                                     .high = high.empty() ? Tensor() : in.back().value()})};
  };
  c.SetReference([=](const auto& in) {
    using R = ScalarOf<decltype(in)>;
    return std::vector<Array<R>>{SoftmaxReference(s, scale, mask, in[0], low, high)};
  });
  return c;
}

std::vector<OpCase> SoftmaxCases() {
  // The rows of `ranges` see some, none, all, and ranges that end outside.
  const std::vector<double> low = {0, 3, 5, 16, 0, -4, 18}, high = {1, 17, 5, 18, 19, 30, 99};
  std::vector<OpCase> cases = {
      SoftmaxCase("one", {1, 1, 1, 1}),
      SoftmaxCase("heads", {2, 3, 4, 16}, 0.25),
      SoftmaxCase("negative_scale", {2, 5, 1, 37}, -1.5),
      SoftmaxCase("causal", {2, 19, 3, 19}, 0.5, Mask::kCausal),
      SoftmaxCase("causal_wide", {1, 7, 2, 40}, 1, Mask::kCausal),
      SoftmaxCase("causal_tall", {1, 23, 1, 8}, 1, Mask::kCausal),
      SoftmaxCase("ranges", {1, 7, 2, 19}, 1, Mask::kNone, low, high),
      SoftmaxCase("high", {1, 7, 1, 19}, 2, Mask::kNone, {}, high),
      SoftmaxCase("causal_low", {1, 7, 1, 7}, 1, Mask::kCausal, {0, 0, 1, 2, 5, 4, 0}),
      SoftmaxCase("long_run", {1, 2, 1, 2053})};
  cases.push_back(SoftmaxCase("long_aligned_run", {1, 2, 1, 4096}));
  return cases;
}

}  // namespace

TESSERA_OP_CASES(Softmax, SoftmaxCases());

}  // namespace tessera::testing
