#include <algorithm>
#include <cmath>

#include "tests/contract/op_case.h"

namespace tessera::testing {
namespace {

struct Sizes {
  std::string name;
  int64_t B, T, H, Hkv, K, V;
  int64_t window = 0;
  int64_t L = 0, first = 0, capacity = 0;  // capacity 0: L
  float soft_cap = 0;
  std::vector<int64_t> documents = {};  // where they start, in the T tokens of each row
  int64_t after = 0;
};

// The row behind the last token of t's document.
int64_t EndOf(const Sizes& s, int64_t t) {
  for (const int64_t d : s.documents)
    if (d > t) return std::min(d, s.T);
  return s.T;
}

// The whole row of scores, exponentials and their sum: no tile, no running maximum, a mask.
template <class Arrays>
auto FullSoftmax(const Sizes& s, const Arrays& in) {
  using R = ScalarOf<Arrays>;
  using std::exp, std::tanh;
  const bool packed = !s.documents.empty();
  const Array<R>&q = in[0], &k = in[1], &v = in[2];
  const int64_t G = s.H / s.Hkv, capacity = s.capacity > 0 ? s.capacity : s.L;
  Array<R> o({s.B, s.T, s.H * s.V});
  for (int64_t b = 0; b < s.B; ++b)
    for (int64_t h = 0; h < s.H; ++h)
      for (int64_t t = 0; t < s.T; ++t) {
        const int64_t row = b * s.T + t;
        std::vector<R> weight;
        std::vector<int64_t> key, value;  // where the visible ones begin, past ones negative
        R sum = 0.0;
        for (int64_t j = 0; j < s.L + s.T; ++j) {
          const int64_t ahead = j - s.L - t;
          if (s.after >= 0 && ahead > s.after) continue;
          if (j >= s.L + EndOf(s, t)) continue;
          if (s.window > 0 && -ahead >= s.window) continue;
          if (packed && j < s.L + static_cast<int64_t>(static_cast<double>(in[3][row]))) continue;
          const int64_t slot =
              j < s.L ? b * capacity + (s.first + j) % capacity : b * s.T + j - s.L;
          const Array<R>& keys = j < s.L ? in[in.size() - 2] : k;
          R score = 0.0;
          for (int64_t i = 0; i < s.K; ++i)
            score += q[(row * s.H + h) * s.K + i] * keys[(slot * s.Hkv + h / G) * s.K + i];
          score = score * (1 / std::sqrt(static_cast<double>(s.K)));
          if (s.soft_cap > 0) score = s.soft_cap * tanh(score * (1.0 / s.soft_cap));
          weight.push_back(exp(score));
          sum += weight.back();
          value.push_back(j < s.L ? -1 - slot : slot);
        }
        for (int64_t i = 0; i < s.V; ++i) {
          R out = 0.0;
          for (size_t j = 0; j < weight.size(); ++j) {
            const bool past = value[j] < 0;
            const int64_t slot = past ? -1 - value[j] : value[j];
            out += weight[j] * (past ? in[in.size() - 1] : v)[(slot * s.Hkv + h / G) * s.V + i];
          }
          o[(row * s.H + h) * s.V + i] = out / sum;
        }
      }
  return std::vector<Array<R>>{o};
}

OpCase AttentionCase(const Sizes& s, double deviation = 1) {
  const bool packed = !s.documents.empty();
  const int64_t capacity = s.capacity > 0 ? s.capacity : s.L;
  OpCase c;
  c.name = s.name;
  c.inputs = {{.name = "q", .shape = {s.B, s.T, s.H * s.K}, .value = NormalValues(deviation)},
              {.name = "k", .shape = {s.B, s.T, s.Hkv * s.K}},
              {.name = "v", .shape = {s.B, s.T, s.Hkv * s.V}}};
  if (packed) {
    c.inputs.push_back({.name = "start",
                        .shape = {s.B, s.T},
                        .kind = Kind::kInt,
                        .value = Starts(s.T, s.documents, s.L)});
  }
  if (s.L > 0) {
    c.inputs.push_back({.name = "past_k", .shape = {s.B, capacity, s.Hkv * s.K}});
    c.inputs.push_back({.name = "past_v", .shape = {s.B, capacity, s.Hkv * s.V}});
  }
  c.run = [s, packed](Context& ctx, const std::vector<Var>& in) {
    if (packed) ctx.start = in[3].value();
    KvPast past;
    if (s.L > 0) past = {in[in.size() - 2], in[in.size() - 1], s.L, s.first};
    const float scale = 1 / std::sqrt(static_cast<float>(s.K));
    return std::vector<Var>{Attention(ctx, in[0], in[1], in[2], past,
                                      {.heads = s.H,
                                       .kv_heads = s.Hkv,
                                       .window = s.window,
                                       .after = s.after,
                                       .scale = scale,
                                       .soft_cap = s.soft_cap})};
  };
  c.SetReference([s](const auto& in) { return FullSoftmax(s, in); });
  return c;
}

std::vector<OpCase> AttentionCases() {
  std::vector<OpCase> cases = {
      AttentionCase({.name = "tiles", .B = 2, .T = 67, .H = 2, .Hkv = 2, .K = 16, .V = 16}),
      AttentionCase({.name = "grouped", .B = 1, .T = 37, .H = 6, .Hkv = 2, .K = 7, .V = 5}),
      AttentionCase({.name = "one_key_head", .B = 2, .T = 23, .H = 5, .Hkv = 1, .K = 3, .V = 19}),
      AttentionCase({.name = "two_blocks", .B = 1, .T = 293, .H = 2, .Hkv = 1, .K = 4, .V = 3}),
      // Rows that a GPU copies 16 bytes at a time, through several tiles of each size it has.
      AttentionCase({.name = "blocks_of_64",
                     .B = 1,
                     .T = 140,
                     .H = 2,
                     .Hkv = 1,
                     .K = 64,
                     .V = 56,
                     .documents = {90}}),
      AttentionCase({.name = "blocks_of_128",
                     .B = 1,
                     .T = 140,
                     .H = 2,
                     .Hkv = 1,
                     .K = 96,
                     .V = 72,
                     .window = 71}),
      AttentionCase({.name = "blocks_of_256",
                     .B = 1,
                     .T = 75,
                     .H = 2,
                     .Hkv = 1,
                     .K = 144,
                     .V = 160,
                     .L = 13}),
      AttentionCase(
          {.name = "window", .B = 1, .T = 150, .H = 2, .Hkv = 2, .K = 8, .V = 8, .window = 29}),
      AttentionCase({.name = "window_of_two_over_blocks",
                     .B = 1,
                     .T = 270,
                     .H = 1,
                     .Hkv = 1,
                     .K = 4,
                     .V = 4,
                     .window = 2}),
      AttentionCase(
          {.name = "soft_cap", .B = 1, .T = 70, .H = 2, .Hkv = 2, .K = 16, .V = 8, .soft_cap = 2},
          3),
      AttentionCase({.name = "documents",
                     .B = 2,
                     .T = 83,
                     .H = 2,
                     .Hkv = 1,
                     .K = 8,
                     .V = 8,
                     .documents = {1, 2, 40, 64, 90}}),
      AttentionCase({.name = "past", .B = 2, .T = 30, .H = 2, .Hkv = 1, .K = 8, .V = 12, .L = 47}),
      AttentionCase({.name = "past_documents_window_cap",
                     .B = 2,
                     .T = 50,
                     .H = 2,
                     .Hkv = 2,
                     .K = 8,
                     .V = 8,
                     .window = 21,
                     .L = 33,
                     .soft_cap = 5,
                     .documents = {4, 30, 77}}),
      AttentionCase({.name = "past_out_of_the_window",
                     .B = 1,
                     .T = 5,
                     .H = 2,
                     .Hkv = 1,
                     .K = 4,
                     .V = 4,
                     .window = 9,
                     .L = 300}),
  };
  // Where queries are the keys, scores grow with the width, and each takes all weight for itself.
  OpCase wide =
      AttentionCase({.name = "wide", .B = 1, .T = 21, .H = 1, .Hkv = 1, .K = 131, .V = 140});
  wide.alias_scale = 0.3;
  cases.push_back(wide);
  // A value past the largest: large scores, where one key takes nearly all the weight.
  OpCase sharp =
      AttentionCase({.name = "sharp", .B = 1, .T = 100, .H = 1, .Hkv = 1, .K = 16, .V = 16}, 8);
  sharp.bars.why =
      "scores of deviation 8 carry an absolute error of 8 ulp, which exp makes a relative one";
  sharp.bars.fp32_rms = 4e-6;
  sharp.alias_scale = 0.1;
  cases.push_back(sharp);
  // Its own key is all that the first query sees: the weight is 1 and no score has a gradient.
  cases.push_back(
      AttentionCase({.name = "one_token", .B = 3, .T = 1, .H = 2, .Hkv = 1, .K = 1, .V = 1}));
  return cases;
}

// Queries that see keys behind their own: all of their document's, or some.
std::vector<OpCase> LookingAheadCases() {
  std::vector<OpCase> cases;
  for (const Sizes& s : std::vector<Sizes>{
           {.name = "all", .B = 2, .T = 67, .H = 4, .Hkv = 2, .K = 9, .V = 16, .after = -1},
           {.name = "two_blocks", .B = 1, .T = 293, .H = 2, .Hkv = 1, .K = 4, .V = 3, .after = -1},
           {.name = "symmetric",
           .B = 1,
           .T = 150,
           .H = 2,
           .Hkv = 2,
           .K = 8,
           .V = 8,
           .window = 29,
           .after = 28},
           {.name = "symmetric_over_blocks",
           .B = 1,
           .T = 530,
           .H = 1,
           .Hkv = 1,
           .K = 4,
           .V = 4,
           .window = 9,
           .after = 8},
           {.name = "itself_and_three",
           .B = 1,
           .T = 270,
           .H = 2,
           .Hkv = 1,
           .K = 4,
           .V = 4,
           .window = 1,
           .after = 3},
           {.name = "past_and_three",
           .B = 1,
           .T = 41,
           .H = 1,
           .Hkv = 1,
           .K = 4,
           .V = 5,
           .L = 20,
           .after = 3},
           {.name = "documents",
           .B = 2,
           .T = 83,
           .H = 2,
           .Hkv = 1,
           .K = 8,
           .V = 8,
           .documents = {1, 2, 40, 64, 90},
           .after = -1},
           {.name = "past_documents_window_cap",
           .B = 2,
           .T = 50,
           .H = 2,
           .Hkv = 2,
           .K = 8,
           .V = 8,
           .window = 21,
           .L = 33,
           .soft_cap = 5,
           .documents = {4, 30, 77},
           .after = 20},
           {.name = "blocks_of_64",
           .B = 1,
           .T = 140,
           .H = 2,
           .Hkv = 1,
           .K = 64,
           .V = 56,
           .documents = {70, 90},
           .after = -1},
           {.name = "blocks_of_128",
           .B = 1,
           .T = 140,
           .H = 2,
           .Hkv = 1,
           .K = 96,
           .V = 72,
           .window = 41,
           .after = 40},
           {.name = "blocks_of_256",
           .B = 1,
           .T = 75,
           .H = 2,
           .Hkv = 1,
           .K = 144,
           .V = 160,
           .L = 13,
           .after = -1},
           {.name = "few_tokens",
           .B = 2,
           .T = 4,
           .H = 4,
           .Hkv = 2,
           .K = 6,
           .V = 8,
           .L = 590,
           .documents = {3},
           .after = -1},
           {.name = "few_tokens_of_many_heads",
           .B = 1,
           .T = 5,
           .H = 16,
           .Hkv = 1,
           .K = 4,
           .V = 3,
           .L = 270,
           .after = 2}})
    cases.push_back(AttentionCase(s));
  return cases;
}

// Few tokens: the keys are cut into pieces, whatever the number of heads that share them. A cache
// in use is a ring and larger than its rows, and no gradient flows to it.
std::vector<OpCase> AttentionDecodeCases() {
  std::vector<OpCase> cases = {
      AttentionCase(
          {.name = "long_cache", .B = 2, .T = 1, .H = 4, .Hkv = 2, .K = 12, .V = 9, .L = 2051}),
      AttentionCase({.name = "ring",
                     .B = 2,
                     .T = 3,
                     .H = 2,
                     .Hkv = 1,
                     .K = 8,
                     .V = 8,
                     .window = 40,
                     .L = 37,
                     .first = 11,
                     .capacity = 39,
                     .soft_cap = 3,
                     .documents = {4}}),
      AttentionCase(
          {.name = "groups_of_16", .B = 2, .T = 1, .H = 16, .Hkv = 1, .K = 8, .V = 6, .L = 290}),
      AttentionCase(
          {.name = "groups_of_32", .B = 1, .T = 1, .H = 32, .Hkv = 1, .K = 5, .V = 9, .L = 530}),
      AttentionCase({.name = "groups_of_64_in_a_ring",
                     .B = 1,
                     .T = 2,
                     .H = 64,
                     .Hkv = 1,
                     .K = 4,
                     .V = 3,
                     .window = 270,
                     .L = 280,
                     .first = 211,
                     .capacity = 285,
                     .soft_cap = 4}),
      AttentionCase({.name = "ring_in_tiles",
                     .B = 1,
                     .T = 75,
                     .H = 1,
                     .Hkv = 1,
                     .K = 8,
                     .V = 8,
                     .L = 60,
                     .first = 50,
                     .capacity = 70}),
  };
  for (OpCase& c : cases)
    for (Input& in : c.inputs) in.wants_grad = in.name.rfind("past", 0) != 0;
  return cases;
}

// The last rows of two pieces, some of each, all of them, none of the first.
std::vector<OpCase> LastRowsCases() {
  std::vector<OpCase> cases;
  for (const int64_t keep : {2, 3, 5, 7, 100}) {
    OpCase c;
    c.name = "keep" + std::to_string(keep);
    c.inputs = {{.name = "a", .shape = {2, 4, 5}}, {.name = "b", .shape = {2, 3, 5}}};
    c.run = [keep](Context& ctx, const std::vector<Var>& in) {
      return std::vector<Var>{LastRows(ctx, in[0], in[1], keep)};
    };
    c.SetReference([keep](const auto& in) {
      using R = ScalarOf<decltype(in)>;
      const int64_t rows = std::min<int64_t>(keep, 7);
      Array<R> y({2, rows, 5});
      for (int64_t b = 0; b < 2; ++b)
        for (int64_t i = 0; i < rows; ++i)
          for (int64_t d = 0; d < 5; ++d) {
            const int64_t t = 7 - rows + i;
            y[(b * rows + i) * 5 + d] =
                t < 4 ? in[0][(b * 4 + t) * 5 + d] : in[1][(b * 3 + t - 4) * 5 + d];
          }
      return std::vector<Array<R>>{y};
    });
    cases.push_back(c);
  }
  return cases;
}

// Rows 0..T-1 into a ring, told by row number.
TEST(WriteRows, WrapsAndKeepsTheLast) {
  Arena arena(Arena::Backing::kPoisoned, 1 << 20);
  Context ctx(Device::kCpu, &arena);
  const auto ring = [&](int64_t capacity, int64_t first, int64_t T) {
    Tensor cache = ctx.Zeros({2, capacity, 1}, DType::kF32), x = ctx.New({2, T, 1}, DType::kF32);
    for (int64_t i = 0; i < 2 * T; ++i) x.data<float>()[i] = static_cast<float>(i + 1);
    WriteRows(ctx, cache, first, x);
    return std::vector<float>(cache.data<float>(), cache.data<float>() + 2 * capacity);
  };
  EXPECT_EQ(ring(4, 1, 2), (std::vector<float>{0, 1, 2, 0, 0, 3, 4, 0}));
  EXPECT_EQ(ring(4, 7, 2), (std::vector<float>{2, 0, 0, 1, 4, 0, 0, 3}));
  EXPECT_EQ(ring(3, 0, 5), (std::vector<float>{4, 5, 3, 9, 10, 8}));
}

}  // namespace

TESSERA_OP_CASES(Attention, AttentionCases());
TESSERA_OP_CASES(AttentionDecode, AttentionDecodeCases());
TESSERA_OP_CASES(AttentionLookingAhead, LookingAheadCases());
TESSERA_OP_CASES(LastRows, LastRowsCases());

}  // namespace tessera::testing
