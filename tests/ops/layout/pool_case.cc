#include "ops/time.h"
#include "tests/contract/op_case.h"

namespace tessera::testing {
namespace {

template <class R>
Array<R> PoolReference(const Array<R>& x, int64_t n, Pooling pooling) {
  const int64_t B = x.shape[0], T = x.shape[1], C = x.shape[2], groups = (T + n - 1) / n;
  Array<R> y(Shape{B, groups, C});
  for (int64_t b = 0; b < B; ++b)
    for (int64_t j = 0; j < groups; ++j)
      for (int64_t c = 0; c < C; ++c) {
        R v = x[(b * T + j * n) * C + c];
        int64_t rows = 1;
        for (int64_t t = j * n + 1; t < T && t < (j + 1) * n; ++t, ++rows) {
          const R& u = x[(b * T + t) * C + c];
          v = pooling == Pooling::kMax ? (u > v ? u : v) : v + u;
        }
        y[(b * groups + j) * C + c] =
            pooling == Pooling::kMean ? v / R(static_cast<double>(rows)) : v;
      }
  return y;
}

OpCase PoolCase(const std::string& name, int64_t B, int64_t T, int64_t C, int64_t n,
                Pooling pooling) {
  OpCase c{.name = name, .inputs = {{.name = "x", .shape = {B, T, C}}}};
  c.run = [=](Context& ctx, const std::vector<Var>& in) {
    return std::vector<Var>{Pool(ctx, in[0], n, pooling)};
  };
  c.SetReference([=](const auto& in) {
    using R = ScalarOf<decltype(in)>;
    return std::vector<Array<R>>{PoolReference(in[0], n, pooling)};
  });
  c.finite_differences = pooling != Pooling::kMax;
  return c;
}

OpCase RepeatCase(const std::string& name, int64_t B, int64_t T, int64_t C, int64_t n) {
  const int64_t groups = (T + n - 1) / n;
  OpCase c{.name = name, .inputs = {{.name = "x", .shape = {B, groups, C}}}};
  c.run = [=](Context& ctx, const std::vector<Var>& in) {
    return std::vector<Var>{Repeat(ctx, in[0], n, T)};
  };
  c.SetReference([=](const auto& in) {
    using R = ScalarOf<decltype(in)>;
    Array<R> y(Shape{B, T, C});
    for (int64_t i = 0; i < B * T * C; ++i)
      y[i] = in[0][(i / C / T * groups + i / C % T / n) * C + i % C];
    return std::vector<Array<R>>{y};
  });
  return c;
}

std::vector<OpCase> PoolCases() {
  return {PoolCase("one_token", 1, 1, 1, 4, Pooling::kMean),
          PoolCase("mean", 2, 12, 16, 4, Pooling::kMean),
          PoolCase("mean_ragged", 3, 13, 19, 5, Pooling::kMean),
          PoolCase("sum_ragged", 2, 7, 33, 3, Pooling::kSum),
          PoolCase("max_ragged", 2, 11, 24, 4, Pooling::kMax),
          PoolCase("whole_sequence", 2, 37, 8, 37, Pooling::kMean),
          RepeatCase("repeat", 2, 12, 16, 4),
          RepeatCase("repeat_ragged", 3, 13, 19, 5),
          RepeatCase("repeat_one", 1, 3, 5, 1)};
}

}  // namespace

TESSERA_OP_CASES(Pool, PoolCases());

}  // namespace tessera::testing
