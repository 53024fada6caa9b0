#include "tests/contract/op_case.h"

namespace tessera::testing {
namespace {

// y = x W^T + b by its definition.
OpCase LinearCase(const std::string& name, int64_t B, int64_t T, int64_t K, int64_t N, bool bias) {
  OpCase c;
  c.name = name;
  c.inputs = {{.name = "x", .shape = {B, T, K}},
              {.name = "weight", .shape = {N, K}, .kind = Kind::kFloat}};
  if (bias) c.inputs.push_back({.name = "bias", .shape = {N}, .kind = Kind::kFloat});
  c.run = [](Context& ctx, const std::vector<Var>& in) {
    return std::vector<Var>{Linear(ctx, in[0], in[1], in.size() > 2 ? in[2] : Var())};
  };
  c.SetReference([=](const auto& in) {
    using R = ScalarOf<decltype(in)>;
    Array<R> y({B, T, N});
    for (int64_t r = 0; r < B * T; ++r)
      for (int64_t j = 0; j < N; ++j) {
        R s = bias ? in[2][j] : R(0.0);
        for (int64_t k = 0; k < K; ++k) s = s + in[0][r * K + k] * in[1][j * K + k];
        y[r * N + j] = s;
      }
    return std::vector<Array<R>>{y};
  });
  return c;
}

std::vector<OpCase> LinearCases() {
  return {LinearCase("one", 1, 1, 1, 1, true), LinearCase("one_token", 1, 1, 67, 41, false),
          LinearCase("few_tokens", 2, 5, 33, 18, true),
          LinearCase("odd_sizes", 2, 19, 23, 37, true),
          LinearCase("tile_multiples", 1, 28, 32, 64, false)};
}

// The same by a loop over rows, each with its expert's weights.
OpCase GroupedCase(const std::string& name, std::vector<double> offsets, int64_t K, int64_t N) {
  const int64_t E = static_cast<int64_t>(offsets.size()) - 1;
  const int64_t rows = static_cast<int64_t>(offsets.back());
  OpCase c;
  c.name = name;
  c.grouped = true;
  c.inputs = {{.name = "x", .shape = {rows, K}},
              {.name = "weight", .shape = {E, N, K}, .kind = Kind::kFloat},
              {.name = "bias", .shape = {E, N}, .kind = Kind::kFloat},
              {.name = "offsets", .shape = {E + 1}, .kind = Kind::kInt}};
  c.inputs[3].value = TheseValues(offsets);
  c.run = [](Context& ctx, const std::vector<Var>& in) {
    return std::vector<Var>{GroupedLinear(ctx, in[0], in[1], in[3].value(), in[2])};
  };
  c.SetReference([=](const auto& in) {
    using R = ScalarOf<decltype(in)>;
    Array<R> y({rows, N});
    int64_t e = 0;
    for (int64_t r = 0; r < rows; ++r) {
      while (r >= static_cast<int64_t>(offsets[static_cast<size_t>(e) + 1])) ++e;
      for (int64_t j = 0; j < N; ++j) {
        R s = in[2][e * N + j];
        for (int64_t k = 0; k < K; ++k) s = s + in[0][r * K + k] * in[1][(e * N + j) * K + k];
        y[r * N + j] = s;
      }
    }
    return std::vector<Array<R>>{y};
  });
  return c;
}

std::vector<OpCase> GroupedCases() {
  return {GroupedCase("one", {0, 1}, 1, 1),
          GroupedCase("idle_experts", {0, 0, 3, 3, 24, 25, 25}, 13, 35),
          GroupedCase("one_takes_all", {0, 0, 61}, 17, 9)};
}

}  // namespace

TESSERA_OP_CASES(GroupedLinear, GroupedCases());
TESSERA_OP_CASES(Linear, LinearCases());

}  // namespace tessera::testing
