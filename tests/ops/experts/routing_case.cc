#include "tests/ops/experts/routing_reference.h"

namespace tessera::testing {
namespace {

// Weights and losses, by the definition.
OpCase RouteCase(const std::string& name, int64_t R, int64_t E, const RoutingOptions& o,
                 double spread = 1) {
  OpCase c;
  c.name = name;
  c.inputs = {
      {.name = "logits", .shape = {R, E}, .kind = Kind::kFloat, .value = NormalValues(spread)}};
  c.run = [o](Context& ctx, const std::vector<Var>& in) {
    return std::vector<Var>{Route(ctx, in[0], o).weight};
  };
  c.SetReference([=](const auto& in) {
    using S = ScalarOf<decltype(in)>;
    const RoutedTokens<S> r = RouteByDefinition(in[0], E, o);
    Array<S> weights({R, o.top_k});
    for (int64_t t = 0; t < R; ++t)
      for (int64_t j = 0; j < o.top_k; ++j)
        weights[t * o.top_k + j] = r.weights[static_cast<size_t>(t)][static_cast<size_t>(j)];
    std::vector<Array<S>> out = {weights};
    const auto loss = [&](double coefficient, const S& value) {
      if (coefficient == 0) return;
      out.emplace_back(Shape{1});
      out.back()[0] = coefficient * value;
    };
    loss(o.balance_loss, r.balance_loss);
    loss(o.z_loss, r.z_loss);
    return out;
  });
  return c;
}

std::vector<OpCase> RouteCases() {
  const auto all = RouterSoftmax::kAll, chosen = RouterSoftmax::kChosen;
  return {
      RouteCase("one", 1, 1, {.top_k = 1, .softmax = all, .z_loss = 0.1}),
      RouteCase("switch", 67, 8, {.top_k = 1, .softmax = all, .balance_loss = 0.5, .z_loss = 0.1}),
      RouteCase("top2_of_8", 130, 8, {.top_k = 2, .softmax = chosen, .balance_loss = 1}),
      RouteCase("top4_of_64", 130, 64, {.top_k = 4, .softmax = all, .scale = 2.5, .z_loss = 1}),
      RouteCase("all_of_5", 19, 5, {.top_k = 5, .softmax = chosen, .scale = 0.5, .z_loss = 1}),
      RouteCase("odd_experts", 83, 37,
                {.top_k = 3, .softmax = all, .balance_loss = 1, .z_loss = 1}),
      RouteCase("sure_router", 65, 16,
                {.top_k = 2, .softmax = all, .balance_loss = 1, .z_loss = 0.01}, 10),
      RouteCase("capacity_all", 70, 4,
                {.top_k = 2, .softmax = all, .capacity_factor = 0.75, .balance_loss = 1}),
      RouteCase("capacity_chosen", 131, 7,
                {.top_k = 3, .softmax = chosen, .capacity_factor = 0.5, .z_loss = 1}),
  };
}

// x W^T in fp32, whatever the type of x.
std::vector<OpCase> RouterLogitsCases() {
  std::vector<OpCase> cases;
  for (const auto& [name, B, T, D, E] :
       {std::tuple{"one", 1, 1, 1, 1}, {"odd", 2, 19, 37, 7}, {"many_experts", 1, 40, 64, 65}}) {
    OpCase c;
    c.name = name;
    c.inputs = {{.name = "x", .shape = {B, T, D}},
                {.name = "weight", .shape = {E, D}, .kind = Kind::kFloat}};
    c.run = [](Context& ctx, const std::vector<Var>& in) {
      return std::vector<Var>{RouterLogits(ctx, in[0], in[1])};
    };
    c.SetReference([R = int64_t{B} * T, D = int64_t{D}, E = int64_t{E}](const auto& in) {
      using S = ScalarOf<decltype(in)>;
      Array<S> y({R, E});
      for (int64_t r = 0; r < R; ++r)
        for (int64_t e = 0; e < E; ++e)
          for (int64_t d = 0; d < D; ++d) y[r * E + e] += in[0][r * D + d] * in[1][e * D + d];
      return std::vector<Array<S>>{y};
    });
    // Only the gradient of x is rounded to bf16.
    c.bars.bf16_rms = 2e-6;
    cases.push_back(c);
  }
  return cases;
}

}  // namespace

TESSERA_OP_CASES(Route, RouteCases());
TESSERA_OP_CASES(RouterLogits, RouterLogitsCases());

}  // namespace tessera::testing
