#include "tests/contract/op_case.h"

namespace tessera::testing {
namespace {

struct Sizes {
  int64_t B, T, G, W;
};

OpCase BroadcastCase(const std::string& name, Broadcasting how, Values values, const Sizes& s,
                     Kind kind = Kind::kFloat) {
  const bool shared = values == Values::kShared, multiply = how == Broadcasting::kMultiply;
  OpCase c{.name = name, .inputs = {{.name = "x", .shape = {s.B, s.T, s.G * s.W}}}};
  c.inputs.push_back(
      {.name = "v", .shape = shared ? Shape{s.G} : Shape{s.B, s.T, s.G}, .kind = kind});
  c.run = [=](Context& ctx, const std::vector<Var>& in) {
    return std::vector<Var>{multiply ? BroadcastMultiply(ctx, in[0], in[1])
                                     : BroadcastAdd(ctx, in[0], in[1])};
  };
  c.SetReference([=](const auto& in) {
    using R = ScalarOf<decltype(in)>;
    Array<R> y(in[0].shape);
    for (int64_t i = 0; i < s.B * s.T * s.G * s.W; ++i) {
      const R& v = in[1][shared ? i / s.W % s.G : i / s.W];
      y[i] = multiply ? in[0][i] * v : in[0][i] + v;
    }
    return std::vector<Array<R>>{y};
  });
  return c;
}

std::vector<OpCase> BroadcastCases() {
  std::vector<OpCase> cases;
  const std::pair<const char*, Broadcasting> both[] = {{"multiply", Broadcasting::kMultiply},
                                                       {"add", Broadcasting::kAdd}};
  for (const auto& [name, how] : both) {
    const auto add = [&, how = how, name = std::string(name)](const char* what, Values values,
                                                              const Sizes& s,
                                                              Kind kind = Kind::kFloat) {
      cases.push_back(BroadcastCase(name + what, how, values, s, kind));
    };
    add("_one", Values::kShared, {1, 1, 1, 1});
    add("_channels", Values::kShared, {2, 37, 41, 1});
    add("_channels_aligned", Values::kShared, {3, 71, 32, 1});
    add("_groups", Values::kShared, {2, 67, 3, 16});
    add("_odd_groups", Values::kShared, {1, 13, 5, 7});
    add("_all", Values::kShared, {1, 5, 1, 19});
    add("_rows", Values::kOfRow, {2, 5, 1, 37}, Kind::kActivation);
    add("_heads", Values::kOfRow, {2, 3, 4, 16}, Kind::kActivation);
    add("_elements", Values::kOfRow, {2, 3, 24, 1}, Kind::kActivation);
    add("_fp32_heads", Values::kOfRow, {1, 7, 3, 5});
    add("_long", Values::kOfRow, {1, 2, 1, 2053}, Kind::kActivation);
  }
  return cases;
}

}  // namespace

TESSERA_OP_CASES(Broadcast, BroadcastCases());

}  // namespace tessera::testing
