#include "ops/time.h"
#include "tests/contract/op_case.h"

namespace tessera::testing {
namespace {

struct Sizes {
  std::string name;
  int64_t B, T, C, n;
  bool state = false;
  std::vector<int64_t> documents = {};  // rows at which one begins
};

// Token t of all that came: the state's rows, then the chunk's.
OpCase ShiftCase(const Sizes& s) {
  OpCase c{.name = s.name, .inputs = {{.name = "x", .shape = {s.B, s.T, s.C}}}};
  if (s.state)
    c.inputs.push_back({.name = "state", .shape = {s.B, s.n, s.C}, .kind = Kind::kFloat});
  if (!s.documents.empty())
    c.inputs.push_back({.name = "start",
                        .shape = {s.B, s.T},
                        .kind = Kind::kInt,
                        .value = Starts(s.T, s.documents, s.state ? 99 : 0)});
  c.run = [s](Context& ctx, const std::vector<Var>& in) {
    if (!s.documents.empty()) ctx.start = in.back().value();
    const Scanned out = Shift(ctx, in[0], s.state ? in[1] : Var(), s.n,
                              s.state ? LastState::kKeep : LastState::kDrop);
    return s.state ? std::vector<Var>{out.y, out.state} : std::vector<Var>{out.y};
  };
  c.SetReference([s](const auto& in) {
    using R = ScalarOf<decltype(in)>;
    const auto document = [&](int64_t t) {
      int64_t d = 0;
      for (const int64_t row : s.documents) d += row <= t ? 1 : 0;
      return d;
    };
    const auto at = [&](int64_t b, int64_t t, int64_t seen_by, int64_t i) {
      if (document(t) != document(seen_by)) return R(0);
      if (t >= 0) return in[0][(b * s.T + t) * s.C + i];
      return s.state ? in[1][(b * s.n + s.n + t) * s.C + i] : R(0);
    };
    Array<R> y(Shape{s.B, s.T, s.C}), last(Shape{s.B, s.n, s.C});
    for (int64_t b = 0; b < s.B; ++b)
      for (int64_t i = 0; i < s.C; ++i) {
        for (int64_t t = 0; t < s.T; ++t) y[(b * s.T + t) * s.C + i] = at(b, t - s.n, t, i);
        for (int64_t j = 0; j < s.n; ++j)
          last[(b * s.n + j) * s.C + i] = at(b, s.T - s.n + j, s.T - 1, i);
      }
    if (!s.state) return std::vector<Array<R>>{y};
    return std::vector<Array<R>>{y, last};
  });
  return c;
}

std::vector<OpCase> ShiftCases() {
  return {
      ShiftCase({.name = "one_token", .B = 2, .T = 1, .C = 5, .n = 1, .state = true}),
      ShiftCase({.name = "one", .B = 2, .T = 9, .C = 16, .n = 1}),
      ShiftCase({.name = "shorter_than_the_shift", .B = 2, .T = 3, .C = 7, .n = 5, .state = true}),
      ShiftCase(
          {.name = "documents", .B = 2, .T = 23, .C = 19, .n = 2, .documents = {0, 1, 2, 17}}),
      ShiftCase({.name = "documents_and_state",
                 .B = 2,
                 .T = 31,
                 .C = 33,
                 .n = 3,
                 .state = true,
                 .documents = {2, 29}}),
  };
}

}  // namespace

TESSERA_OP_CASES(Shift, ShiftCases());

}  // namespace tessera::testing
