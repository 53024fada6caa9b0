#include "tests/contract/op_case.h"

namespace tessera::testing {
namespace {

struct Sizes {
  int64_t B, H, M, N, K;
};

// Element (i, j) of the matrix of sequence b and head h, stored [rows, columns] in a
// [B,rows,H*columns].
int64_t At(const Sizes& s, int64_t rows, int64_t columns, int64_t b, int64_t h, int64_t i,
           int64_t j) {
  return ((b * rows + i) * s.H + h) * columns + j;
}

template <class R>
Array<R> Product(const Sizes& s, const BatchedMatmulOptions& o, const Array<R>& a,
                 const Array<R>& b) {
  const auto [B, H, M, N, K] = s;
  const bool a_plain = o.a == Order::kPlain, b_plain = o.b == Order::kPlain;
  Array<R> c(Shape{B, M, H * N});
  for (int64_t g = 0; g < B * H; ++g)
    for (int64_t i = 0; i < M; ++i)
      for (int64_t j = 0; j < N; ++j) {
        R sum = 0.0;
        for (int64_t k = 0; k < K; ++k) {
          // Where the factors' elements are stored, and whether above the diagonal.
          const int64_t ai = a_plain ? i : k, aj = a_plain ? k : i;
          const int64_t bi = b_plain ? k : j, bj = b_plain ? j : k;
          if ((o.lower == Lower::kA && aj > ai) || (o.lower == Lower::kB && bj > bi)) continue;
          sum += a[At(s, a_plain ? M : K, a_plain ? K : M, g / H, g % H, ai, aj)] *
                 b[At(s, b_plain ? K : N, b_plain ? N : K, g / H, g % H, bi, bj)];
        }
        const bool above = o.lower == Lower::kResult && j > i;
        c[At(s, M, N, g / H, g % H, i, j)] = above ? R(0.0) : R(static_cast<double>(o.alpha)) * sum;
      }
  return c;
}

OpCase BatchedCase(const std::string& name, const Sizes& s, BatchedMatmulOptions o) {
  const auto [B, H, M, N, K] = s;
  o.heads = H;
  OpCase c{
      .name = name,
      .inputs = {{.name = "a", .shape = {B, M, H * K}}, {.name = "b", .shape = {B, K, H * N}}}};
  if (o.a == Order::kTransposed) c.inputs[0].shape = {B, K, H * M};
  if (o.b == Order::kTransposed) c.inputs[1].shape = {B, N, H * K};
  c.run = [=](Context& ctx, const std::vector<Var>& in) {
    return std::vector<Var>{BatchedMatmul(ctx, in[0], in[1], o)};
  };
  c.SetReference([=](const auto& in) {
    using R = ScalarOf<decltype(in)>;
    return std::vector<Array<R>>{Product(s, o, in[0], in[1])};
  });
  return c;
}

// A factor that stays fp32 beside one of the compute type.
OpCase Mixed(const std::string& name, const Sizes& s, const BatchedMatmulOptions& o, size_t fp32) {
  OpCase c = BatchedCase(name, s, o);
  c.inputs[fp32].kind = Kind::kFloat;
  return c;
}

// Causal attention of the three words, with scores and shares in fp32 whatever the compute type.
OpCase AttentionCase(int64_t B, int64_t T, int64_t H, int64_t K, int64_t V) {
  OpCase c{.name = "attention_by_definition",
           .inputs = {{.name = "q", .shape = {B, T, H * K}},
                      {.name = "k", .shape = {B, T, H * K}},
                      {.name = "v", .shape = {B, T, H * V}}}};
  c.run = [=](Context& ctx, const std::vector<Var>& in) {
    const Var scores = BatchedMatmul(
        ctx, in[0], in[1],
        {.heads = H, .b = Order::kTransposed, .lower = Lower::kResult, .result = DType::kF32});
    const Var shares = Softmax(ctx, scores, {.groups = H, .scale = 0.5f, .mask = Mask::kCausal});
    return std::vector<Var>{BatchedMatmul(ctx, shares, in[2], {.heads = H, .lower = Lower::kA})};
  };
  c.SetReference([=](const auto& in) {
    using std::exp;
    using R = ScalarOf<decltype(in)>;
    Array<R> o(Shape{B, T, H * V});
    for (int64_t i = 0; i < B * T * H; ++i) {
      const int64_t b = i / H / T, t = i / H % T, h = i % H;
      R total = 0.0;
      std::vector<R> sum(static_cast<size_t>(V), R(0.0));
      for (int64_t j = 0; j <= t; ++j) {
        R dot = 0.0;
        for (int64_t d = 0; d < K; ++d)
          dot += in[0][i * K + d] * in[1][(((b * T + j) * H) + h) * K + d];
        const R e = exp(R(0.5) * dot);
        total += e;
        for (int64_t d = 0; d < V; ++d)
          sum[static_cast<size_t>(d)] += e * in[2][(((b * T + j) * H) + h) * V + d];
      }
      for (int64_t d = 0; d < V; ++d) o[i * V + d] = sum[static_cast<size_t>(d)] / total;
    }
    return std::vector<Array<R>>{o};
  });
  return c;
}

constexpr Order kPlain = Order::kPlain, kTransposed = Order::kTransposed;
constexpr Lower kLowers[] = {Lower::kNone, Lower::kResult, Lower::kA, Lower::kB};

std::vector<OpCase> BatchedCases() {
  std::vector<OpCase> cases = {
      BatchedCase("one", {1, 1, 1, 1, 1}, {.alpha = 0.5f}),
      BatchedCase("scores", {2, 2, 17, 17, 16}, {.b = kTransposed, .alpha = 0.25f}),
      BatchedCase("few_rows", {2, 3, 5, 37, 9}, {.b = kTransposed, .alpha = 0.25f}),
      BatchedCase("fp32_scores", {1, 2, 19, 23, 8}, {.b = kTransposed, .result = DType::kF32}),
      BatchedCase("bf16_values", {1, 2, 19, 5, 11}, {.result = DType::kBF16}),
      Mixed("fp32_scores_times_values", {2, 1, 13, 7, 13}, {.lower = Lower::kA}, 0),
      // More than a block of the CPU's along K, and more than one of its rows or columns.
      BatchedCase("tall_lower_a", {1, 1, 820, 1, 820}, {.lower = Lower::kA}),
      BatchedCase("wide_lower_b", {1, 1, 1, 820, 820}, {.b = kTransposed, .lower = Lower::kB}),
      BatchedCase("deep_lower_result", {1, 1, 19, 23, 830}, {.lower = Lower::kResult}),
      AttentionCase(2, 19, 2, 8, 5), Mixed("fp32_right", {1, 3, 4, 9, 6}, {.a = kTransposed}, 1)};
  // bf16 rounds the result of an fp32 case as well.
  cases[4].bars = {5e-3, 1e-2, 1e-5, 1e-4, 5e-3, 2e-2, "the result is bf16"};
  // Every order with every triangle: squares, and rectangles either way, none a multiple of a tile.
  const Sizes sizes[] = {{1, 2, 37, 37, 37}, {2, 1, 19, 70, 33}, {1, 1, 71, 29, 67}};
  int i = 0;
  for (const Order a : {kPlain, kTransposed})
    for (const Order b : {kPlain, kTransposed})
      for (const Lower lower : kLowers) {
        const std::string name = std::string(a == kPlain ? "n" : "t") + (b == kPlain ? "n" : "t") +
                                 "_lower" + std::to_string(static_cast<int>(lower));
        const BatchedMatmulOptions o{.a = a, .b = b, .lower = lower, .alpha = i % 2 ? 1 : 0.125f};
        cases.push_back(BatchedCase(name, sizes[i++ % 3], o));
      }
  return cases;
}

}  // namespace

TESSERA_OP_CASES(BatchedMatmul, BatchedCases());

}  // namespace tessera::testing
