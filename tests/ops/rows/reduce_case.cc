#include "tests/contract/op_case.h"

namespace tessera::testing {
namespace {

template <class R>
R Reduced(Reduction reduction, const R* x, int64_t n) {
  using std::exp;
  using std::log;
  R sum = 0.0, most = x[0];
  for (int64_t i = 0; i < n; ++i) {
    sum += reduction == Reduction::kLse ? exp(x[i]) : x[i];
    if (x[i] > most) most = x[i];
  }
  switch (reduction) {
    case Reduction::kSum:
      return sum;
    case Reduction::kMean:
      return sum / R(static_cast<double>(n));
    case Reduction::kMax:
      return most;
    case Reduction::kLse:
      return log(sum);
  }
  return sum;
}

OpCase ReduceCase(const std::string& name, Reduction reduction, int64_t B, int64_t T, int64_t G,
                  int64_t W) {
  OpCase c{.name = name, .inputs = {{.name = "x", .shape = {B, T, G * W}}}};
  if (reduction == Reduction::kMax) {
    c.inputs[0].value = IntsBelow(7);  // many are equal
    c.finite_differences = false;
  }
  c.run = [=](Context& ctx, const std::vector<Var>& in) {
    return std::vector<Var>{Reduce(ctx, reduction, in[0], G)};
  };
  c.SetReference([=](const auto& in) {
    using R = ScalarOf<decltype(in)>;
    Array<R> y(Shape{B, T, G});
    for (int64_t i = 0; i < B * T * G; ++i) y[i] = Reduced(reduction, &in[0][i * W], W);
    return std::vector<Array<R>>{y};
  });
  return c;
}

std::vector<OpCase> ReduceCases() {
  std::vector<OpCase> cases;
  const std::pair<const char*, Reduction> all[] = {{"sum", Reduction::kSum},
                                                   {"mean", Reduction::kMean},
                                                   {"max", Reduction::kMax},
                                                   {"lse", Reduction::kLse}};
  for (const auto& [name, reduction] : all) {
    const auto add = [&](const char* what, int64_t B, int64_t T, int64_t G, int64_t W) {
      cases.push_back(ReduceCase(std::string(name) + what, reduction, B, T, G, W));
    };
    add("_one", 1, 1, 1, 1);
    add("_rows", 2, 5, 1, 37);
    add("_groups", 2, 3, 4, 16);
    add("_narrow", 1, 7, 11, 3);
    add("_long", 1, 3, 1, 2053);
  }
  return cases;
}

}  // namespace

TESSERA_OP_CASES(Reduce, ReduceCases());

}  // namespace tessera::testing
