#include <cmath>

#include "tests/contract/op_case.h"

namespace tessera::testing {
namespace {

struct Sizes {
  std::string name;
  int64_t B, T, H, G, N, P;
  bool state = false, D = true;
  double A_log = 0.5;  // of the fastest head; the slowest forgets exp(-3) as fast
  double dt_bias = -1;
  std::vector<int64_t> documents = {};
};

// The recurrence, token by token. With a state, its last value is the second output.
template <class Arrays>
auto Recurrence(const Sizes& s, const Arrays& in) {
  using R = ScalarOf<Arrays>;
  using std::exp, std::log;
  const Array<R>&x = in[0], &raw = in[1], &b = in[2], &c = in[3], &A_log = in[4], &bias = in[5];
  size_t next = 6;
  const Array<R>* D = s.D ? &in[next++] : nullptr;
  const Array<R>* start = s.documents.empty() ? nullptr : &in[next++];
  const Array<R>* state = s.state ? &in[next++] : nullptr;
  Array<R> y({s.B, s.T, s.H * s.P}), last({s.B, s.H, s.N, s.P});
  for (int64_t i = 0; i < s.B * s.H; ++i) {
    const int64_t row = i / s.H, h = i % s.H, g = h / (s.H / s.G);
    std::vector<R> S(static_cast<size_t>(s.N * s.P), R(0.0));
    for (int64_t j = 0; j < s.N * s.P && state != nullptr; ++j)
      S[static_cast<size_t>(j)] = (*state)[i * s.N * s.P + j];
    for (int64_t t = 0; t < s.T; ++t) {
      const int64_t token = row * s.T + t;
      if (start != nullptr && static_cast<double>((*start)[token]) == static_cast<double>(t))
        for (R& v : S) v = R(0.0);
      const R z = raw[token * s.H + h] + bias[h];
      const R dt = static_cast<double>(z) > 0 ? z + log(1.0 + exp(-z)) : log(1.0 + exp(z));
      const R decay = exp(-exp(A_log[h]) * dt);
      for (int64_t p = 0; p < s.P; ++p) {
        const R u = x[(token * s.H + h) * s.P + p];
        R out = D != nullptr ? (*D)[h] * u : R(0.0);
        for (int64_t n = 0; n < s.N; ++n) {
          R& v = S[static_cast<size_t>(n * s.P + p)];
          v = decay * v + dt * b[(token * s.G + g) * s.N + n] * u;
          out += c[(token * s.G + g) * s.N + n] * v;
        }
        y[(token * s.H + h) * s.P + p] = out;
      }
    }
    for (int64_t j = 0; j < s.N * s.P; ++j) last[i * s.N * s.P + j] = S[static_cast<size_t>(j)];
  }
  std::vector<Array<R>> out = {y};
  if (s.state) out.push_back(last);
  return out;
}

OpCase SsdCase(const Sizes& s) {
  OpCase c;
  c.name = s.name;
  c.inputs = {
      {.name = "x", .shape = {s.B, s.T, s.H * s.P}},
      {.name = "dt", .shape = {s.B, s.T, s.H}},
      {.name = "b", .shape = {s.B, s.T, s.G * s.N}},
      {.name = "c", .shape = {s.B, s.T, s.G * s.N}},
      {.name = "A_log",
       .shape = {s.H},
       .kind = Kind::kFloat,
       .value = UniformValues(s.A_log - 3, s.A_log)},
      {.name = "dt_bias",
       .shape = {s.H},
       .kind = Kind::kFloat,
       .value = NormalValues(0.5, s.dt_bias)},
  };
  if (s.D) c.inputs.push_back({.name = "D", .shape = {s.H}, .kind = Kind::kFloat});
  if (!s.documents.empty())
    c.inputs.push_back({.name = "start",
                        .shape = {s.B, s.T},
                        .kind = Kind::kInt,
                        .value = Starts(s.T, s.documents, s.state ? 5 : 0)});
  if (s.state)
    c.inputs.push_back({.name = "state", .shape = {s.B, s.H, s.N, s.P}, .kind = Kind::kFloat});
  c.run = [s](Context& ctx, const std::vector<Var>& in) {
    SsdInputs args{.x = in[0],
                   .dt = in[1],
                   .b = in[2],
                   .c = in[3],
                   .A_log = in[4],
                   .dt_bias = in[5],
                   .N = s.N};
    size_t next = 6;
    if (s.D) args.D = in[next++];
    if (!s.documents.empty()) ctx.start = in[next++].value();
    if (s.state) args.state = in[next++];
    const Scanned out = SsdScan(ctx, args, s.state ? LastState::kKeep : LastState::kDrop);
    return s.state ? std::vector<Var>{out.y, out.state} : std::vector<Var>{out.y};
  };
  c.SetReference([s](const auto& in) { return Recurrence(s, in); });
  return c;
}

// One head, one document: the gradient of dt_bias is one number, the sum of 37 terms whose
// magnitudes add up to two hundred times as much.
OpCase WideCase() {
  OpCase c =
      SsdCase({.name = "wide", .B = 1, .T = 37, .H = 1, .G = 1, .N = 37, .P = 41, .state = true});
  c.bars.fp32_grad_rms = 4e-5;
  c.bars.why = "the terms of dt_bias's only gradient cancel, 1636 in magnitude to 8";
  return c;
}

std::vector<OpCase> SsdCases() {
  return {
      SsdCase({.name = "one_token", .B = 2, .T = 1, .H = 3, .G = 1, .N = 5, .P = 4, .state = true}),
      SsdCase(
          {.name = "two_tokens", .B = 1, .T = 2, .H = 2, .G = 2, .N = 16, .P = 17, .state = true}),
      SsdCase({.name = "chunks", .B = 2, .T = 131, .H = 2, .G = 1, .N = 16, .P = 8}),
      // On a GPU, a second span of four chunks, states of each size and rows that are copied 16
      // bytes at a time.
      SsdCase({.name = "spans", .B = 1, .T = 330, .H = 2, .G = 1, .N = 8, .P = 16, .state = true}),
      SsdCase({.name = "tall_states", .B = 1, .T = 77, .H = 2, .G = 1, .N = 104, .P = 40}),
      SsdCase({.name = "broad_states",
               .B = 1,
               .T = 70,
               .H = 1,
               .G = 1,
               .N = 24,
               .P = 96,
               .state = true}),
      SsdCase({.name = "one_chunk_of_one",
               .B = 1,
               .T = 65,
               .H = 1,
               .G = 1,
               .N = 1,
               .P = 1,
               .state = true}),
      SsdCase({.name = "groups_and_state",
               .B = 1,
               .T = 71,
               .H = 6,
               .G = 2,
               .N = 7,
               .P = 5,
               .state = true,
               .D = false}),
      SsdCase(
          {.name = "many_heads", .B = 9, .T = 19, .H = 11, .G = 1, .N = 4, .P = 3, .state = true}),
      WideCase(),
      SsdCase({.name = "strong_decay",
               .B = 1,
               .T = 97,
               .H = 4,
               .G = 1,
               .N = 6,
               .P = 5,
               .state = true,
               .A_log = 5,
               .dt_bias = 1}),
      SsdCase({.name = "weak_decay",
               .B = 1,
               .T = 140,
               .H = 2,
               .G = 1,
               .N = 6,
               .P = 5,
               .state = true,
               .A_log = -4,
               .dt_bias = -4}),
      SsdCase({.name = "documents",
               .B = 2,
               .T = 137,
               .H = 2,
               .G = 1,
               .N = 6,
               .P = 5,
               .documents = {0, 1, 2, 17, 64, 100}}),
      SsdCase({.name = "documents_and_state",
               .B = 1,
               .T = 75,
               .H = 2,
               .G = 1,
               .N = 3,
               .P = 5,
               .state = true,
               .documents = {30, 66}}),
  };
}

}  // namespace

TESSERA_OP_CASES(SsdScan, SsdCases());

}  // namespace tessera::testing
