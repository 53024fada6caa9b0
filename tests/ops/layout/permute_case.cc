#include "tests/ops/experts/routing_reference.h"

namespace tessera::testing {
namespace {

struct Sizes {
  int64_t B, T, D, F, E;
  Activation f = Activation::kSilu;
  Gating gating = Gating::kGated;
};

// f(x) or f(gate) up of one expert.
template <class S>
std::vector<S> Hidden(const Sizes& s, const std::vector<S>& x) {
  using std::erf;
  using std::exp;
  const size_t F = static_cast<size_t>(s.F);
  std::vector<S> y;
  for (size_t i = 0; i < F; ++i) {
    S f = x[i] > 0.0 ? x[i] * x[i] : S(0.0);
    if (s.f == Activation::kSilu) f = x[i] / (1.0 + exp(-x[i]));
    if (s.f == Activation::kGelu) f = 0.5 * x[i] * (1.0 + erf(x[i] / std::sqrt(2.0)));
    y.push_back(s.gating == Gating::kGated ? f * x[F + i] : f);
  }
  return y;
}

// W_e x.
template <class S>
std::vector<S> Times(const Array<S>& weight, int64_t e, const std::vector<S>& x) {
  const int64_t N = weight.shape[1], K = weight.shape[2];
  std::vector<S> y(static_cast<size_t>(N), S(0.0));
  for (int64_t n = 0; n < N; ++n)
    for (int64_t k = 0; k < K; ++k)
      y[static_cast<size_t>(n)] += weight[(e * N + n) * K + k] * x[static_cast<size_t>(k)];
  return y;
}

// A loop over tokens and their experts. in: x, logits, W_in [E,F or 2F,D], W_out [E,D,F].
template <class Arrays>
auto ExpertsByToken(const Sizes& s, const RoutingOptions& o, const Arrays& in) {
  using S = ScalarOf<Arrays>;
  const RoutedTokens<S> r = RouteByDefinition(in[1], s.E, o);
  Array<S> y({s.B, s.T, s.D});
  for (int64_t t = 0; t < s.B * s.T; ++t)
    for (size_t j = 0; j < static_cast<size_t>(o.top_k); ++j) {
      const size_t at = static_cast<size_t>(t);
      const S w = r.weights[at][j];
      if (w == S(0.0)) continue;
      const int64_t e = r.experts[at][j];
      const std::vector<S> x(in[0].v.begin() + t * s.D, in[0].v.begin() + (t + 1) * s.D);
      const std::vector<S> out = Times(in[3], e, Hidden(s, Times(in[2], e, x)));
      for (int64_t d = 0; d < s.D; ++d) y[t * s.D + d] += w * out[static_cast<size_t>(d)];
    }
  return std::vector<Array<S>>{y};
}

OpCase ExpertsCase(const std::string& name, const Sizes& s, const RoutingOptions& o) {
  OpCase c;
  c.name = name;
  c.grouped = true;
  const int64_t hidden = s.gating == Gating::kGated ? 2 * s.F : s.F;
  const auto small = NormalValues(0.5);
  c.inputs = {
      {.name = "x", .shape = {s.B, s.T, s.D}},
      {.name = "logits", .shape = {s.B * s.T, s.E}, .kind = Kind::kFloat},
      {.name = "in", .shape = {s.E, hidden, s.D}, .kind = Kind::kFloat, .value = small},
      {.name = "out", .shape = {s.E, s.D, s.F}, .kind = Kind::kFloat, .value = small},
  };
  c.bars.bf16_rms = 8e-3;
  c.bars.why = "products, hidden values and sums are rounded to bf16 one after another";
  c.SetReference([=](const auto& in) { return ExpertsByToken(s, o, in); });
  return c;
}

// With the tokens copied into rows and back.
OpCase Copied(OpCase c, const Sizes& s, const RoutingOptions& o) {
  c.run = [=](Context& ctx, const std::vector<Var>& in) {
    const Routing r = Route(ctx, in[1], o);
    const Var rows = GroupedLinear(ctx, Permute(ctx, in[0], r), in[2], r.offsets);
    Routing unweighted = r;
    unweighted.weight = Var(ctx.New({r.R, r.k}, DType::kF32));
    for (int64_t i = 0; unweighted.weight.data<float>() != nullptr && i < r.R * r.k; ++i)
      unweighted.weight.data<float>()[i] = 1;
    const Var hidden = ExpertActivation(ctx, s.f, s.gating, rows, unweighted);
    const Var out = GroupedLinear(ctx, hidden, in[3], r.offsets);
    return std::vector<Var>{Combine(ctx, out, r, in[0].shape())};
  };
  return c;
}

// With the products that gather and scatter.
OpCase Fused(OpCase c, const Sizes& s, const RoutingOptions& o) {
  c.run = [=](Context& ctx, const std::vector<Var>& in) {
    const Routing r = Route(ctx, in[1], o);
    const Var hidden =
        ExpertActivation(ctx, s.f, s.gating, DispatchLinear(ctx, in[0], in[2], r), r);
    return std::vector<Var>{CombineLinear(ctx, hidden, in[3], r, in[0].shape())};
  };
  return c;
}

std::vector<OpCase> ExpertsCases() {
  std::vector<OpCase> cases;
  const auto add = [&](const std::string& name, const Sizes& s, const RoutingOptions& o) {
    cases.push_back(Copied(ExpertsCase(name + "_copied", s, o), s, o));
    cases.push_back(Fused(ExpertsCase(name + "_fused", s, o), s, o));
  };
  const auto all = RouterSoftmax::kAll;
  add("one", {1, 1, 1, 1, 1}, {.top_k = 1});
  add("swiglu", {2, 19, 18, 13, 4}, {.top_k = 2});
  add("idle_experts", {1, 3, 8, 5, 11, Activation::kGelu}, {.top_k = 1, .softmax = all});
  add("fine_grained", {1, 33, 17, 3, 16, Activation::kGelu, Gating::kPlain}, {.top_k = 5});
  add("every_expert", {1, 7, 5, 4, 3, Activation::kRelu2, Gating::kPlain},
      {.top_k = 3, .softmax = all});
  add("capacity", {2, 23, 9, 7, 5}, {.top_k = 2, .softmax = all, .capacity_factor = 0.6});
  return cases;
}

}  // namespace

TESSERA_OP_CASES(Experts, ExpertsCases());

}  // namespace tessera::testing
