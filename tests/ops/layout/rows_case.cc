#include <algorithm>
#include <numeric>

#include "ops/rows.h"
#include "tests/contract/op_case.h"

namespace tessera::testing {
namespace {

Input IndexInput(const Shape& shape, std::vector<double> values) {
  return {.name = "index", .shape = shape, .kind = Kind::kInt, .value = TheseValues(values)};
}

// Rows of x [G,n,C], or [n,C] with G = 0; `index` counts within a group.
OpCase GatherCase(const std::string& name, int64_t G, int64_t n, int64_t C, int64_t rows,
                  const std::vector<double>& index) {
  const Shape x = G == 0 ? Shape{n, C} : Shape{G, n, C};
  OpCase c{.name = name,
           .inputs = {{.name = "x", .shape = x},
                      IndexInput(G == 0 ? Shape{rows} : Shape{G, rows}, index)}};
  c.run = [](Context& ctx, const std::vector<Var>& in) {
    return std::vector<Var>{Gather(ctx, in[0], in[1].value())};
  };
  c.SetReference([=](const auto& in) {
    using R = ScalarOf<decltype(in)>;
    const int64_t groups = std::max<int64_t>(G, 1);
    Array<R> y(Shape{groups * rows, C});
    for (int64_t r = 0; r < groups * rows; ++r) {
      const int64_t at = static_cast<int64_t>(index[static_cast<size_t>(r) % index.size()]);
      for (int64_t j = 0; j < C; ++j)
        y[r * C + j] = at < 0 || at >= n ? R(0) : in[0][(r / rows * n + at) * C + j];
    }
    return std::vector<Array<R>>{y};
  });
  return c;
}

OpCase ScatterCase(const std::string& name, int64_t G, int64_t n, int64_t C, int64_t rows,
                   const std::vector<double>& index, ScatterTo to = ScatterTo::kSum) {
  OpCase c{.name = name,
           .inputs = {{.name = "x", .shape = G == 0 ? Shape{rows, C} : Shape{G, rows, C}},
                      IndexInput(G == 0 ? Shape{rows} : Shape{G, rows}, index)}};
  c.run = [=](Context& ctx, const std::vector<Var>& in) {
    return std::vector<Var>{Scatter(ctx, in[0], in[1].value(), n, to)};
  };
  c.SetReference([=](const auto& in) {
    using R = ScalarOf<decltype(in)>;
    const int64_t groups = std::max<int64_t>(G, 1);
    Array<R> y(Shape{groups * n, C});
    std::vector<double> count(static_cast<size_t>(groups * n));
    for (int64_t r = 0; r < groups * rows; ++r) {
      const int64_t at = static_cast<int64_t>(index[static_cast<size_t>(r) % index.size()]);
      if (at < 0 || at >= n) continue;
      ++count[static_cast<size_t>(r / rows * n + at)];
      for (int64_t j = 0; j < C; ++j) {
        R& sum = y[(r / rows * n + at) * C + j];
        sum = sum + in[0][r * C + j];
      }
    }
    for (int64_t i = 0; i < groups * n * C; ++i)
      if (const double rows_of = count[static_cast<size_t>(i / C)];
          to == ScatterTo::kMean && rows_of > 0)
        y[i] = y[i] / rows_of;
    return std::vector<Array<R>>{y};
  });
  return c;
}

std::vector<OpCase> GatherCases() {
  std::vector<double> many;
  for (int i = 0; i < 97; ++i) many.push_back(i * i % 41 - 1);
  return {GatherCase("one", 0, 1, 1, 1, {0}),
          GatherCase("repeats_and_none", 0, 5, 19, 7, {3, -1, 3, 0, 9, 3, 4}),
          GatherCase("of_sequences", 3, 6, 16, 4, {5, 0, 2, 2, -1, 1, 1, 1, 5, 4, 3, 0}),
          GatherCase("many", 0, 41, 40, 97, many)};
}
std::vector<OpCase> ScatterCases() {
  std::vector<double> many;
  for (int i = 0; i < 97; ++i) many.push_back(i * i % 41 - 1);
  return {ScatterCase("one", 0, 1, 1, 1, {0}),
          ScatterCase("repeats_and_none", 0, 5, 19, 7, {3, -1, 3, 0, 9, 3, 4}),
          ScatterCase("of_sequences", 3, 6, 16, 4, {5, 0, 2, 2, -1, 1, 1, 1, 5, 4, 3, 0}),
          ScatterCase("many", 0, 41, 40, 97, many)};
}
// Segments of some rows, of one and of none, in order and in none.
std::vector<OpCase> SegmentMeanCases() {
  std::vector<double> many;
  for (int i = 0; i < 97; ++i) many.push_back(i * i % 41 - 1);
  constexpr ScatterTo kMean = ScatterTo::kMean;
  return {ScatterCase("one", 0, 1, 1, 1, {0}, kMean),
          ScatterCase("patches", 0, 5, 19, 9, {0, 0, 0, 1, 3, 3, 3, 3, 4}, kMean),
          ScatterCase("of_sequences", 3, 6, 16, 4, {5, 0, 2, 2, -1, 1, 1, 1, 5, 4, 3, 0}, kMean),
          ScatterCase("many", 0, 41, 40, 97, many, kMean)};
}

struct Groups {
  int64_t of = 1, kept = 1;
};
// The places of the k best of `scores` by sorting.
std::vector<int64_t> Best(const std::vector<double>& scores, int64_t k, ChooseOrder order,
                          const Groups& groups = {}) {
  std::vector<int64_t> place(scores.size());
  std::iota(place.begin(), place.end(), 0);
  if (groups.of > 1) {
    const auto size = static_cast<std::ptrdiff_t>(scores.size()) / groups.of;
    std::vector<double> sums;
    for (std::ptrdiff_t g = 0; g < groups.of; ++g) {
      std::vector<double> own(scores.begin() + g * size, scores.begin() + (g + 1) * size);
      std::sort(own.rbegin(), own.rend());
      sums.push_back(own[0] + (size > 1 ? own[1] : 0));
    }
    const std::vector<int64_t> kept = Best(sums, groups.kept, ChooseOrder::kByScore);
    std::erase_if(place, [&](int64_t i) {
      return std::find(kept.begin(), kept.end(), i / size) == kept.end();
    });
  }
  std::stable_sort(place.begin(), place.end(), [&](int64_t a, int64_t b) {
    return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
  });
  place.resize(static_cast<size_t>(k));
  if (order == ChooseOrder::kByPlace) std::sort(place.begin(), place.end());
  return place;
}
// The values, and the places as they come back through a gather of known rows.
OpCase ChooseCase(const std::string& name, int64_t B, int64_t N, int64_t C, int64_t k,
                  ChooseAxis axis, ChooseOrder order, bool bias, Groups groups = {}) {
  OpCase c{.name = name, .inputs = {{.name = "x", .shape = {B, N, C}}}};
  if (axis == ChooseAxis::kLast) c.inputs[0].shape = {B, C, N};
  if (bias)
    c.inputs.push_back({.name = "bias",
                        .shape = {N},
                        .kind = Kind::kFloat,
                        .value = UniformValues(-2, 2),
                        .wants_grad = false});
  c.inputs.push_back({.name = "row", .shape = {N, 3}, .wants_grad = false});
  c.run = [=](Context& ctx, const std::vector<Var>& in) {
    const Chosen chosen = Choose(ctx, in[0], k,
                                 {.axis = axis,
                                  .order = order,
                                  .bias = bias ? in[1].value() : Tensor(),
                                  .groups = groups.of,
                                  .kept_groups = groups.kept});
    const Tensor flat = chosen.index.Reshape({chosen.index.elements()});
    return std::vector<Var>{chosen.value, Gather(ctx, in.back().Detach(), flat)};
  };
  c.SetReference([=](const auto& in) {
    using R = ScalarOf<decltype(in)>;
    Array<R> value(Shape{B, C, k}), rows(Shape{B * C * k, 3});
    for (int64_t item = 0; item < B * C; ++item) {
      const auto at = [&](int64_t i) {
        return axis == ChooseAxis::kLast ? item * N + i : (item / C * N + i) * C + item % C;
      };
      std::vector<double> scores;
      for (int64_t i = 0; i < N; ++i)
        scores.push_back(static_cast<double>(in[0][at(i)]) +
                         (bias ? static_cast<double>(in[1][i]) : 0));
      const std::vector<int64_t> best = Best(scores, k, order, groups);
      for (int64_t j = 0; j < k; ++j) {
        const int64_t place = best[static_cast<size_t>(j)];
        value[item * k + j] = in[0][at(place)];
        for (int64_t l = 0; l < 3; ++l)
          rows[(item * k + j) * 3 + l] = in[in.size() - 1][place * 3 + l];
      }
    }
    return std::vector<Array<R>>{value, rows};
  });
  c.finite_differences = false;
  return c;
}

std::vector<OpCase> ChooseCases() {
  using Axis = ChooseAxis;
  using Order = ChooseOrder;
  OpCase ties = ChooseCase("ties", 2, 30, 1, 7, Axis::kLast, Order::kByScore, false);
  ties.inputs[0].value = IntsBelow(4);
  OpCase tied_groups =
      ChooseCase("tied_groups", 2, 24, 3, 5, Axis::kLast, Order::kByScore, false, {6, 2});
  tied_groups.inputs[0].value = IntsBelow(3);
  return {
      ChooseCase("one", 1, 1, 1, 1, Axis::kLast, Order::kByScore, false),
      ChooseCase("experts", 2, 16, 9, 2, Axis::kLast, Order::kByScore, false),
      ChooseCase("experts_biased", 1, 61, 5, 8, Axis::kLast, Order::kByScore, true),
      ChooseCase("all", 1, 13, 3, 13, Axis::kLast, Order::kByPlace, false),
      ChooseCase("tokens", 3, 37, 1, 5, Axis::kTime, Order::kByPlace, false),
      ChooseCase("tokens_of_experts", 2, 150, 3, 20, Axis::kTime, Order::kByScore, true),
      ChooseCase("groups", 2, 32, 9, 4, Axis::kLast, Order::kByScore, true, {8, 3}),
      ChooseCase("groups_as_they_stand", 1, 33, 5, 7, Axis::kLast, Order::kByPlace, false, {11, 4}),
      ChooseCase("groups_of_one", 1, 9, 4, 2, Axis::kLast, Order::kByScore, false, {9, 5}),
      ChooseCase("groups_of_tokens", 2, 60, 3, 12, Axis::kTime, Order::kByScore, true, {6, 2}),
      tied_groups,
      ties};
}

}  // namespace

TESSERA_OP_CASES(Gather, GatherCases());
TESSERA_OP_CASES(Scatter, ScatterCases());
TESSERA_OP_CASES(SegmentMean, SegmentMeanCases());
TESSERA_OP_CASES(Choose, ChooseCases());

}  // namespace tessera::testing
