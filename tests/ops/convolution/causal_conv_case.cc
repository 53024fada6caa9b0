#include <cmath>

#include "tests/contract/op_case.h"

namespace tessera::testing {
namespace {

struct Sizes {
  std::string name;
  int64_t B, T, C, W;
  bool state = false, bias = true;
  ConvActivation activation = ConvActivation::kNone;
  std::vector<int64_t> documents = {};
};

// Tap by tap over the state and the inputs laid end to end.
template <class Arrays>
auto TapByTap(const Sizes& s, const Arrays& in) {
  using R = ScalarOf<Arrays>;
  using std::exp;
  size_t next = 2;
  const Array<R>* bias = s.bias ? &in[next++] : nullptr;
  const Array<R>* start = s.documents.empty() ? nullptr : &in[next++];
  const Array<R>* state = s.state ? &in[next++] : nullptr;
  const int64_t kept = s.W - 1;
  Array<R> y({s.B, s.T, s.C}), last({s.B, kept, s.C});
  for (int64_t b = 0; b < s.B; ++b)
    for (int64_t c = 0; c < s.C; ++c) {
      const auto input = [&](int64_t t) {
        if (t >= 0) return in[0][(b * s.T + t) * s.C + c];
        return state != nullptr ? (*state)[(b * kept + kept + t) * s.C + c] : R(0.0);
      };
      const auto before = [&](int64_t t, int64_t back) {  // the document of t
        return start != nullptr && t - back < static_cast<double>((*start)[b * s.T + t]);
      };
      for (int64_t t = 0; t < s.T; ++t) {
        R u = bias != nullptr ? (*bias)[c] : R(0.0);
        for (int64_t l = 0; l < s.W; ++l)
          if (!before(t, l)) u += in[1][c * s.W + s.W - 1 - l] * input(t - l);
        y[(b * s.T + t) * s.C + c] =
            s.activation == ConvActivation::kSilu ? u / (1.0 + exp(-u)) : u;
      }
      for (int64_t i = 0; i < kept; ++i) {
        const int64_t back = kept - 1 - i;
        last[(b * kept + i) * s.C + c] = before(s.T - 1, back) ? R(0.0) : input(s.T - 1 - back);
      }
    }
  std::vector<Array<R>> out = {y};
  if (s.state) out.push_back(last);
  return out;
}

OpCase ConvCase(const Sizes& s) {
  OpCase c;
  c.name = s.name;
  c.inputs = {{.name = "x", .shape = {s.B, s.T, s.C}},
              {.name = "weight", .shape = {s.C, s.W}, .kind = Kind::kFloat}};
  if (s.bias) c.inputs.push_back({.name = "bias", .shape = {s.C}, .kind = Kind::kFloat});
  if (!s.documents.empty())
    c.inputs.push_back({.name = "start",
                        .shape = {s.B, s.T},
                        .kind = Kind::kInt,
                        .value = Starts(s.T, s.documents, s.state ? 9 : 0)});
  if (s.state)
    c.inputs.push_back({.name = "state", .shape = {s.B, s.W - 1, s.C}, .kind = Kind::kFloat});
  c.run = [s](Context& ctx, const std::vector<Var>& in) {
    ConvInputs args{.x = in[0], .weight = in[1], .activation = s.activation};
    size_t next = 2;
    if (s.bias) args.bias = in[next++];
    if (!s.documents.empty()) ctx.start = in[next++].value();
    if (s.state) args.state = in[next++];
    const Scanned out = CausalConv(ctx, args, s.state ? LastState::kKeep : LastState::kDrop);
    return s.state ? std::vector<Var>{out.y, out.state} : std::vector<Var>{out.y};
  };
  c.SetReference([s](const auto& in) { return TapByTap(s, in); });
  return c;
}

std::vector<OpCase> ConvCases() {
  constexpr ConvActivation kSilu = ConvActivation::kSilu;
  std::vector<OpCase> cases = {
      ConvCase({.name = "one_token",
                .B = 2,
                .T = 1,
                .C = 5,
                .W = 4,
                .state = true,
                .activation = kSilu}),
      ConvCase({.name = "shorter_than_taps", .B = 2, .T = 3, .C = 1, .W = 8, .state = true}),
      ConvCase({.name = "blocks", .B = 2, .T = 37, .C = 33, .W = 4, .activation = kSilu}),
      ConvCase({.name = "no_bias",
                .B = 1,
                .T = 35,
                .C = 19,
                .W = 4,
                .state = true,
                .bias = false,
                .activation = kSilu}),
      ConvCase(
          {.name = "runs", .B = 2, .T = 523, .C = 3, .W = 4, .state = true, .activation = kSilu}),
      ConvCase({.name = "columns", .B = 1, .T = 18, .C = 531, .W = 4, .activation = kSilu}),
      ConvCase({.name = "documents",
                .B = 2,
                .T = 83,
                .C = 6,
                .W = 4,
                .activation = kSilu,
                .documents = {0, 1, 2, 17, 32, 48, 81}}),
      ConvCase({.name = "documents_and_state",
                .B = 2,
                .T = 290,
                .C = 3,
                .W = 5,
                .state = true,
                .documents = {2, 100, 256, 258, 287}}),
      ConvCase({.name = "last_document_of_one_token",
                .B = 1,
                .T = 21,
                .C = 3,
                .W = 4,
                .state = true,
                .activation = kSilu,
                .documents = {20}}),
  };
  for (int64_t W = 2; W <= 8; ++W)
    cases.push_back(ConvCase(
        {.name = "width" + std::to_string(W), .B = 1, .T = 39, .C = 5, .W = W, .state = true}));
  return cases;
}

}  // namespace

TESSERA_OP_CASES(CausalConv, ConvCases());

}  // namespace tessera::testing
