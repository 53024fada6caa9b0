#include "tests/contract/op_case.h"

namespace tessera::testing {
namespace {

struct Sizes {
  std::string name;
  int64_t B, T, D, G;
  NormKind kind = NormKind::kRms;
  NormGate gate = NormGate::kNone;
  bool shared_gain = false;
  bool affine = true;  // gain, and bias of a layer norm
  double eps = 1e-5;
};

template <class R>
R SiluOf(const R& z) {
  using std::exp;
  return z / (R(1.0) + exp(R(0.0) - z));
}

// The definition: every sum anew, no saved statistics.
template <class Arrays>
auto Normed(const Sizes& s, const Arrays& in) {
  using R = ScalarOf<Arrays>;
  using std::sqrt;
  const int64_t W = s.D / s.G;
  const bool gated = s.gate != NormGate::kNone;
  const size_t gain = gated ? 2 : 1;
  Array<R> y(in[0].shape);
  for (int64_t i = 0; i < y.shape.elements(); ++i) {
    const int64_t first = i / W * W;
    const auto u = [&](int64_t j) {
      return s.gate == NormGate::kBefore ? in[0][j] * SiluOf(in[1][j]) : in[0][j];
    };
    R mean = 0.0, square = 0.0;
    if (s.kind == NormKind::kLayer)
      for (int64_t j = first; j < first + W; ++j) mean = mean + u(j) / R(double(W));
    for (int64_t j = first; j < first + W; ++j)
      square = square + (u(j) - mean) * (u(j) - mean) / R(double(W));
    R v = (u(i) - mean) / sqrt(square + R(s.eps));
    if (s.affine) v = v * in[gain][s.shared_gain ? i % W : i % s.D];
    if (s.affine && s.kind == NormKind::kLayer) v = v + in[gain + 1][i % s.D];
    if (s.gate == NormGate::kAfter) v = v * SiluOf(in[1][i]);
    y[i] = v;
  }
  return std::vector<Array<R>>{y};
}

OpCase NormCase(const Sizes& s) {
  OpCase c;
  c.name = s.name;
  c.inputs = {{.name = "x", .shape = {s.B, s.T, s.D}, .value = NormalValues(2, 0.5)}};
  if (s.gate != NormGate::kNone) c.inputs.push_back({.name = "z", .shape = {s.B, s.T, s.D}});
  if (s.affine)
    c.inputs.push_back({.name = "gain",
                        .shape = {s.shared_gain ? s.D / s.G : s.D},
                        .kind = Kind::kFloat,
                        .value = NormalValues(0.3, 1)});
  if (s.affine && s.kind == NormKind::kLayer)
    c.inputs.push_back({.name = "bias", .shape = {s.D}, .kind = Kind::kFloat});
  c.run = [s](Context& ctx, const std::vector<Var>& in) {
    const float eps = static_cast<float>(s.eps);
    const auto at = [&](size_t i) { return s.affine ? in[i] : Var(); };
    if (s.gate != NormGate::kNone)
      return std::vector<Var>{GatedRmsNorm(ctx, in[0], in[1], at(2), s.gate, eps, s.G)};
    if (s.kind == NormKind::kLayer)
      return std::vector<Var>{LayerNorm(ctx, in[0], at(1), at(2), eps, s.G)};
    return std::vector<Var>{RmsNorm(ctx, in[0], at(1), eps, s.G)};
  };
  c.SetReference([s](const auto& in) { return Normed(s, in); });
  return c;
}

// The sum of two inputs, and its norm.
OpCase SumCase(const std::string& name, int64_t B, int64_t T, int64_t D, NormKind kind) {
  OpCase c;
  c.name = name;
  const double scale = 0.7;
  const bool layer = kind == NormKind::kLayer;
  c.inputs = {{.name = "x", .shape = {B, T, D}, .value = NormalValues(2, 0.5)},
              {.name = "f", .shape = {B, T, D}},
              {.name = "gain", .shape = {D}, .kind = Kind::kFloat, .value = NormalValues(0.3, 1)}};
  if (layer) c.inputs.push_back({.name = "bias", .shape = {D}, .kind = Kind::kFloat});
  c.run = [=](Context& ctx, const std::vector<Var>& in) {
    const auto s = static_cast<float>(scale);
    const SumAndNorm both = layer ? AddLayerNorm(ctx, in[0], in[1], s, in[2], in[3], 1e-5f)
                                  : AddRmsNorm(ctx, in[0], in[1], s, in[2], 1e-5f);
    return std::vector<Var>{both.sum, both.y};
  };
  c.SetReference([=](const auto& in) {
    using R = ScalarOf<decltype(in)>;
    auto of_sum = in;
    for (int64_t i = 0; i < B * T * D; ++i) of_sum[0][i] = in[0][i] + R(scale) * in[1][i];
    of_sum.erase(of_sum.begin() + 1);
    const Array<R> y = Normed(Sizes{name, B, T, D, 1, kind}, of_sum)[0];
    return std::vector<Array<R>>{of_sum[0], y};
  });
  return c;
}

std::vector<OpCase> NormCases() {
  const auto rms = NormKind::kRms, layer = NormKind::kLayer;
  const auto none = NormGate::kNone, before = NormGate::kBefore, after = NormGate::kAfter;
  // Of a single channel the gradient is what eps leaves of it, so eps is large there.
  return {NormCase({"rms_one", 1, 1, 1, 1, rms, none, false, true, 1}),
          NormCase({"rms_prime", 2, 17, 37, 1}),
          NormCase({"rms_wide", 1, 3, 260, 1}),
          NormCase({"rms_many_rows", 1, 67, 16, 1}),
          NormCase({"rms_groups", 1, 5, 57, 3}),
          NormCase({"rms_heads", 2, 5, 96, 4, rms, none, true}),
          NormCase({"rms_plain", 1, 7, 33, 1, rms, none, false, false}),
          NormCase({"layer_prime", 2, 17, 37, 1, layer}),
          NormCase({"layer_heads", 1, 5, 46, 2, layer, none, true}),
          NormCase({"layer_wide_groups", 1, 3, 160, 2, layer}),
          NormCase({"layer_plain", 1, 4, 19, 1, layer, none, false, false}),
          SumCase("sum_rms", 2, 17, 37, rms),
          SumCase("sum_rms_wide", 1, 3, 264, rms),
          SumCase("sum_layer", 1, 35, 48, layer),
          NormCase({"gate_before", 2, 17, 37, 1, rms, before}),
          NormCase({"gate_before_groups", 1, 5, 144, 2, rms, before}),
          NormCase({"gate_after", 2, 17, 37, 1, rms, after}),
          NormCase({"gate_after_heads", 1, 5, 92, 4, rms, after, true})};
}

}  // namespace

TESSERA_OP_CASES(Norm, NormCases());

}  // namespace tessera::testing
