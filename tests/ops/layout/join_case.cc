#include "ops/pointwise.h"
#include "ops/shape.h"
#include "tests/contract/op_case.h"

namespace tessera::testing {
namespace {

using Run = std::function<std::vector<Var>(Context&, const std::vector<Var>&)>;

// Element i of the output is element `from(i).second` of input `from(i).first`.
OpCase Moved(const std::string& name, const std::vector<Shape>& inputs, const Shape& output,
             Run run, std::function<std::pair<size_t, int64_t>(int64_t)> from) {
  OpCase c{.name = name, .run = std::move(run)};
  for (size_t i = 0; i < inputs.size(); ++i)
    c.inputs.push_back({.name = "x" + std::to_string(i), .shape = inputs[i]});
  c.SetReference([=](const auto& in) {
    using R = ScalarOf<decltype(in)>;
    Array<R> y(output);
    for (int64_t i = 0; i < output.elements(); ++i) {
      const auto [input, element] = from(i);
      y[i] = in[input][element];
    }
    return std::vector<Array<R>>{y};
  });
  return c;
}

std::vector<OpCase> JoinCases() {
  std::vector<OpCase> cases;
  cases.push_back(Moved(
      "reshape", {{2, 6, 5}}, {2, 3, 10},
      [](Context& ctx, const std::vector<Var>& in) {
        // A view costs nothing, and an op of the contract something.
        return std::vector<Var>{Scale(ctx, Reshape(ctx, in[0], {2, 3, 10}), 1)};
      },
      [](int64_t i) {
        return std::pair<size_t, int64_t>{0, i};
      }));
  cases.push_back(Moved(
      "concat", {{2, 3, 5}, {2, 3, 1}, {2, 3, 16}}, {2, 3, 22},
      [](Context& ctx, const std::vector<Var>& in) { return std::vector<Var>{Concat(ctx, in)}; },
      [](int64_t i) {
        const int64_t row = i / 22, c = i % 22;
        if (c < 5) return std::pair<size_t, int64_t>{0, row * 5 + c};
        if (c < 6) return std::pair<size_t, int64_t>{1, row};
        return std::pair<size_t, int64_t>{2, row * 16 + c - 6};
      }));
  cases.push_back(Moved(
      "concat_time", {{2, 3, 5}, {2, 1, 5}}, {2, 4, 5},
      [](Context& ctx, const std::vector<Var>& in) {
        return std::vector<Var>{ConcatTime(ctx, in)};
      },
      [](int64_t i) {
        const int64_t b = i / 20, t = i / 5 % 4, c = i % 5;
        if (t < 3) return std::pair<size_t, int64_t>{0, (b * 3 + t) * 5 + c};
        return std::pair<size_t, int64_t>{1, b * 5 + c};
      }));
  for (const int64_t begin : {0, 2, 4})
    cases.push_back(Moved(
        "slice_time_" + std::to_string(begin), {{2, 7, 3}}, {2, 3, 3},
        [=](Context& ctx, const std::vector<Var>& in) {
          return std::vector<Var>{SliceTime(ctx, in[0], begin, 3)};
        },
        [=](int64_t i) {
          return std::pair<size_t, int64_t>{0, (i / 9 * 7 + begin + i / 3 % 3) * 3 + i % 3};
        }));
  return cases;
}

}  // namespace

TESSERA_OP_CASES(Join, JoinCases());

}  // namespace tessera::testing
