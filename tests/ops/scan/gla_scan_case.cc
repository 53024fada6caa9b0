#include <cmath>

#include "tests/contract/op_case.h"

namespace tessera::testing {
namespace {

struct Sizes {
  std::string name;
  int64_t B, T, H, K, V;
  bool state = false;
  double weakest = -0.01, strongest = -3;  // log gates, uniform between them
  std::vector<int64_t> documents = {};
};

// The recurrence, token by token. With a state, its last value is the second output.
template <class Arrays>
auto Recurrence(const Sizes& s, const Arrays& in) {
  using R = ScalarOf<Arrays>;
  using std::exp;
  const Array<R>&q = in[0], &k = in[1], &v = in[2], &g = in[3];
  size_t next = 4;
  const Array<R>* start = s.documents.empty() ? nullptr : &in[next++];
  const Array<R>* state = s.state ? &in[next++] : nullptr;
  Array<R> o({s.B, s.T, s.H * s.V}), last({s.B, s.H, s.K, s.V});
  for (int64_t i = 0; i < s.B * s.H; ++i) {
    std::vector<R> S(static_cast<size_t>(s.K * s.V), R(0.0));
    for (int64_t j = 0; j < s.K * s.V && state != nullptr; ++j)
      S[static_cast<size_t>(j)] = (*state)[i * s.K * s.V + j];
    for (int64_t t = 0; t < s.T; ++t) {
      const int64_t token = i / s.H * s.T + t, head = token * s.H + i % s.H;
      if (start != nullptr && static_cast<double>((*start)[token]) == static_cast<double>(t))
        for (R& x : S) x = R(0.0);
      std::vector<R> out(static_cast<size_t>(s.V), R(0.0));
      for (int64_t c = 0; c < s.K; ++c) {
        const R decay = exp(g[head * s.K + c]);
        for (int64_t d = 0; d < s.V; ++d) {
          R& x = S[static_cast<size_t>(c * s.V + d)];
          x = decay * x + k[head * s.K + c] * v[head * s.V + d];
          out[static_cast<size_t>(d)] += 0.25 * q[head * s.K + c] * x;
        }
      }
      for (int64_t d = 0; d < s.V; ++d) o[head * s.V + d] = out[static_cast<size_t>(d)];
    }
    for (int64_t j = 0; j < s.K * s.V; ++j) last[i * s.K * s.V + j] = S[static_cast<size_t>(j)];
  }
  std::vector<Array<R>> out = {o};
  if (s.state) out.push_back(last);
  return out;
}

OpCase GlaCase(const Sizes& s) {
  OpCase c;
  c.name = s.name;
  c.inputs = {{.name = "q", .shape = {s.B, s.T, s.H * s.K}},
              {.name = "k", .shape = {s.B, s.T, s.H * s.K}},
              {.name = "v", .shape = {s.B, s.T, s.H * s.V}},
              {.name = "g",
               .shape = {s.B, s.T, s.H * s.K},
               .value = UniformValues(s.strongest, s.weakest)}};
  if (!s.documents.empty())
    c.inputs.push_back({.name = "start",
                        .shape = {s.B, s.T},
                        .kind = Kind::kInt,
                        .value = Starts(s.T, s.documents, s.state ? 5 : 0)});
  if (s.state)
    c.inputs.push_back({.name = "state", .shape = {s.B, s.H, s.K, s.V}, .kind = Kind::kFloat});
  c.run = [s](Context& ctx, const std::vector<Var>& in) {
    GlaInputs args{.q = in[0], .k = in[1], .v = in[2], .g = in[3], .heads = s.H, .scale = 0.25};
    size_t next = 4;
    if (!s.documents.empty()) ctx.start = in[next++].value();
    if (s.state) args.state = in[next++];
    const Scanned out = GlaScan(ctx, args, s.state ? LastState::kKeep : LastState::kDrop);
    return s.state ? std::vector<Var>{out.y, out.state} : std::vector<Var>{out.y};
  };
  c.SetReference([s](const auto& in) { return Recurrence(s, in); });
  return c;
}

std::vector<OpCase> GlaCases() {
  return {
      GlaCase({.name = "one_token", .B = 2, .T = 1, .H = 3, .K = 5, .V = 4, .state = true}),
      GlaCase({.name = "two_tokens", .B = 1, .T = 2, .H = 2, .K = 16, .V = 17, .state = true}),
      GlaCase({.name = "one_channel", .B = 1, .T = 17, .H = 1, .K = 1, .V = 1, .state = true}),
      GlaCase({.name = "spans", .B = 1, .T = 131, .H = 2, .K = 8, .V = 7}),
      GlaCase({.name = "spans_and_state", .B = 2, .T = 67, .H = 3, .K = 7, .V = 9, .state = true}),
      // On a GPU, tiles of each size and rows that are copied 16 bytes at a time.
      GlaCase({.name = "square_states", .B = 1, .T = 40, .H = 1, .K = 48, .V = 64, .state = true}),
      GlaCase({.name = "tall_states", .B = 1, .T = 70, .H = 2, .K = 96, .V = 24, .state = true}),
      GlaCase({.name = "broad_states", .B = 1, .T = 70, .H = 2, .K = 24, .V = 96}),
      GlaCase({.name = "wide", .B = 1, .T = 19, .H = 1, .K = 67, .V = 71, .state = true}),
      GlaCase({.name = "gates_of_minus_20",
               .B = 1,
               .T = 83,
               .H = 2,
               .K = 6,
               .V = 5,
               .state = true,
               .weakest = -19,
               .strongest = -21}),
      GlaCase({.name = "all_gates",
               .B = 1,
               .T = 83,
               .H = 2,
               .K = 6,
               .V = 5,
               .state = true,
               .weakest = 0,
               .strongest = -20}),
      GlaCase({.name = "gates_of_0",
               .B = 1,
               .T = 83,
               .H = 2,
               .K = 6,
               .V = 5,
               .state = true,
               .weakest = 0,
               .strongest = 0}),
      GlaCase({.name = "weak_gates",
               .B = 1,
               .T = 150,
               .H = 2,
               .K = 6,
               .V = 5,
               .weakest = 0,
               .strongest = -0.02}),
      GlaCase({.name = "documents",
               .B = 2,
               .T = 87,
               .H = 2,
               .K = 6,
               .V = 5,
               .documents = {0, 1, 2, 16, 40, 86}}),
      GlaCase({.name = "documents_and_state",
               .B = 1,
               .T = 75,
               .H = 2,
               .K = 3,
               .V = 5,
               .state = true,
               .documents = {30, 66}}),
  };
}

}  // namespace

TESSERA_OP_CASES(GlaScan, GlaCases());

}  // namespace tessera::testing
