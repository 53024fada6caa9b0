#include "tests/contract/op_case.h"

namespace tessera::testing {
namespace {

// Parts come back in order, whole; one of them is not used, so its columns get no gradient but
// zero.
std::vector<OpCase> SplitCases() {
  OpCase c;
  c.name = "columns";
  c.inputs = {{.name = "x", .shape = {3, 5, 11}}};
  c.run = [](Context& ctx, const std::vector<Var>& in) {
    const int64_t widths[] = {4, 1, 6};
    const std::vector<Var> parts = Split(ctx, in[0], widths);
    return std::vector<Var>{parts[0], parts[2]};
  };
  c.SetReference([](const auto& in) {
    using R = ScalarOf<decltype(in)>;
    Array<R> a({3, 5, 4}), b({3, 5, 6});
    for (int64_t r = 0; r < 15; ++r) {
      for (int64_t i = 0; i < 4; ++i) a[r * 4 + i] = in[0][r * 11 + i];
      for (int64_t i = 0; i < 6; ++i) b[r * 6 + i] = in[0][r * 11 + 5 + i];
    }
    return std::vector<Array<R>>{a, b};
  });
  // Parts of a part.
  OpCase nested = c;
  nested.name = "nested";
  nested.run = [](Context& ctx, const std::vector<Var>& in) {
    const int64_t outer[] = {1, 10}, inner[] = {3, 7};
    const std::vector<Var> parts = Split(ctx, in[0], outer);
    const std::vector<Var> of_part = Split(ctx, parts[1], inner);
    return std::vector<Var>{of_part[1], Scale(ctx, of_part[0], 2)};
  };
  nested.SetReference([](const auto& in) {
    using R = ScalarOf<decltype(in)>;
    Array<R> a({3, 5, 7}), b({3, 5, 3});
    for (int64_t r = 0; r < 15; ++r) {
      for (int64_t i = 0; i < 7; ++i) a[r * 7 + i] = in[0][r * 11 + 4 + i];
      for (int64_t i = 0; i < 3; ++i) b[r * 3 + i] = 2.0 * in[0][r * 11 + 1 + i];
    }
    return std::vector<Array<R>>{a, b};
  });
  return {c, nested};
}

}  // namespace

TESSERA_OP_CASES(Split, SplitCases());

}  // namespace tessera::testing
