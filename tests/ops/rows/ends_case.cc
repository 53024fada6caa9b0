#include "tests/contract/op_case.h"

// The two ends of a model, embedding and head with its loss, and a scaled stream between.

namespace tessera::testing {
namespace {

std::vector<OpCase> EmbeddingCases() {
  std::vector<OpCase> cases;
  for (const auto& [B, T, V, D] :
       std::vector<std::array<int64_t, 4>>{{1, 1, 1, 1}, {2, 37, 11, 67}, {1, 130, 256, 128}}) {
    OpCase c;
    c.name = "V" + std::to_string(V) + "_D" + std::to_string(D);
    c.inputs = {{.name = "table", .shape = {V, D}, .kind = Kind::kFloat},
                {.name = "tokens", .shape = {B, T}, .kind = Kind::kInt, .value = IntsBelow(V)}};
    c.run = [](Context& ctx, const std::vector<Var>& in) {
      return std::vector<Var>{Embedding(ctx, in[1].value(), in[0])};
    };
    c.SetReference([B = B, T = T, D = D](const auto& in) {
      using R = ScalarOf<decltype(in)>;
      Array<R> y({B, T, D});
      for (int64_t r = 0; r < B * T; ++r)
        for (int64_t i = 0; i < D; ++i)
          y[r * D + i] = in[0][static_cast<int64_t>(static_cast<double>(in[1][r])) * D + i];
      return std::vector<Array<R>>{y};
    });
    cases.push_back(c);
  }
  return cases;
}

std::vector<OpCase> HeadLossCases() {
  std::vector<OpCase> cases;
  // With K, the logits are the sum of two products, of D and of K columns.
  for (const auto& [R, V, D, K] : std::vector<std::array<int64_t, 4>>{
           {1, 2, 1, 0}, {61, 37, 19, 0}, {300, 17, 8, 0}, {5, 256, 64, 0}, {61, 37, 19, 3}}) {
    OpCase c;
    c.name = "R" + std::to_string(R) + "_V" + std::to_string(V) + "_D" + std::to_string(D) +
             (K > 0 ? "_K" + std::to_string(K) : "");
    // Some targets do not count.
    const auto target = [V = V](const Rng& rng, int64_t i) {
      return i % 7 == 3 ? -1.0
                        : static_cast<double>(
                              rng.Below(static_cast<uint64_t>(i), static_cast<uint64_t>(V)));
    };
    c.inputs = {{.name = "hidden", .shape = {R, D}},
                {.name = "head", .shape = {V, D}, .kind = Kind::kFloat},
                {.name = "targets", .shape = {R}, .kind = Kind::kInt, .value = target}};
    if (K > 0) {
      c.inputs.push_back({.name = "low", .shape = {R, K}});
      c.inputs.push_back({.name = "low_head", .shape = {V, K}, .kind = Kind::kFloat});
    }
    c.run = [K = K](Context& ctx, const std::vector<Var>& in) {
      if (K == 0) return std::vector<Var>{HeadLoss(ctx, in[0], in[1], in[2].value())};
      const HeadTerm terms[] = {{in[0], in[1]}, {in[3], in[4]}};
      return std::vector<Var>{HeadLoss(ctx, terms, in[2].value())};
    };
    c.SetReference([R = R, V = V, D = D, K = K](const auto& in) {
      using S = ScalarOf<decltype(in)>;
      S sum = 0.0;
      double count = 0;
      for (int64_t r = 0; r < R; ++r) {
        const int64_t target = static_cast<int64_t>(static_cast<double>(in[2][r]));
        if (target < 0) continue;
        count += 1;
        std::vector<S> logits(static_cast<size_t>(V), S(0.0));
        double largest = -1e300;
        for (int64_t v = 0; v < V; ++v) {
          for (int64_t i = 0; i < D; ++i)
            logits[static_cast<size_t>(v)] += in[0][r * D + i] * in[1][v * D + i];
          for (int64_t i = 0; i < K; ++i)
            logits[static_cast<size_t>(v)] += in[3][r * K + i] * in[4][v * K + i];
          largest = std::max(largest, static_cast<double>(logits[static_cast<size_t>(v)]));
        }
        S total = 0.0;
        for (const S& l : logits) total += exp(l - S(largest));
        sum += log(total) + S(largest) - logits[static_cast<size_t>(target)];
      }
      Array<S> loss({1});
      loss[0] = sum / S(count);
      return std::vector<Array<S>>{loss};
    });
    c.bars.bf16_grad_rms = 3e-2;
    c.bars.why = "the gradient of the logits is rounded to bf16 before both products";
    cases.push_back(c);
  }
  return cases;
}

std::vector<OpCase> ScaleCases() {
  OpCase c;
  c.name = "half";
  c.inputs = {{.name = "x", .shape = {2, 37, 67}}};
  c.run = [](Context& ctx, const std::vector<Var>& in) {
    return std::vector<Var>{Scale(ctx, in[0], -0.5f)};
  };
  c.SetReference([](const auto& in) {
    using R = ScalarOf<decltype(in)>;
    Array<R> y({2, 37, 67});
    for (int64_t i = 0; i < 2 * 37 * 67; ++i) y[i] = R(-0.5) * in[0][i];
    return std::vector<Array<R>>{y};
  });
  return {c};
}

}  // namespace

TESSERA_OP_CASES(Embedding, EmbeddingCases());
TESSERA_OP_CASES(HeadLoss, HeadLossCases());
TESSERA_OP_CASES(Scale, ScaleCases());

}  // namespace tessera::testing
