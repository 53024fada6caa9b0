#include <cmath>
#include <complex>

#include "ops/rope_scaling.h"
#include "tests/contract/op_case.h"

namespace tessera::testing {
namespace {

struct Sizes {
  std::string name;
  int64_t B, T, H, K, R;
  RopePairing pairing;
  int64_t first = 0;
  double attention_factor = 1;
};

// Complex multiplication, by the library's own cos and sin of the whole angle.
template <class Arrays>
auto Turned(const Sizes& s, const Arrays& in) {
  using R = ScalarOf<Arrays>;
  const std::vector<double> radians = ScaledRopeFrequencies({}, 10000, s.R).radians;
  const bool halves = s.pairing == RopePairing::kHalves;
  Array<R> y = in[0];
  for (int64_t row = 0; row < s.B * s.T; ++row)
    for (int64_t h = 0; h < s.H; ++h)
      for (int64_t i = 0; i < s.R / 2; ++i) {
        const auto turn = std::polar(
            s.attention_factor, static_cast<double>(in[1][row]) * radians[static_cast<size_t>(i)]);
        const int64_t head = (row * s.H + h) * s.K;
        const int64_t a = head + (halves ? i : 2 * i),
                      b = head + (halves ? i + s.R / 2 : 2 * i + 1);
        y[a] = in[0][a] * turn.real() - in[0][b] * turn.imag();
        y[b] = in[0][a] * turn.imag() + in[0][b] * turn.real();
      }
  return std::vector<Array<R>>{y};
}

OpCase RopeCase(const Sizes& s) {
  OpCase c;
  c.name = s.name;
  c.inputs = {{.name = "x", .shape = {s.B, s.T, s.H * s.K}},
              {.name = "position",
               .shape = {s.B, s.T},
               .kind = Kind::kInt,
               .value = [s](const Rng&, int64_t i) {
                 const int64_t t = i % s.T;
                 return static_cast<double>(t < 5 ? s.first + t : t - 5);
               }}};
  RopeFrequencies f = ScaledRopeFrequencies({}, 10000, s.R);
  f.attention_factor = s.attention_factor;
  c.run = [s, rotation = MakeRotation(f, s.pairing)](Context& ctx, const std::vector<Var>& in) {
    ctx.position = in[1].value();
    return std::vector<Var>{Rope(ctx, in[0], s.H, rotation)};
  };
  c.SetReference([s](const auto& in) { return Turned(s, in); });
  return c;
}

std::vector<OpCase> RopeCases() {
  std::vector<OpCase> cases;
  for (const RopePairing p : {RopePairing::kHalves, RopePairing::kInterleaved}) {
    const std::string suffix = p == RopePairing::kHalves ? "halves" : "interleaved";
    cases.push_back(RopeCase({"whole_" + suffix, 2, 19, 3, 64, 64, p}));
    cases.push_back(RopeCase({"partial_" + suffix, 2, 7, 2, 23, 10, p}));
    cases.push_back(RopeCase({"one_pair_" + suffix, 1, 1, 1, 2, 2, p}));
    cases.push_back(RopeCase({"far_" + suffix, 1, 33, 1, 32, 32, p, 1000003}));
    cases.push_back(RopeCase({"factor_" + suffix, 1, 9, 2, 12, 8, p, 100, 1.3}));
  }
  return cases;
}

}  // namespace

TESSERA_OP_CASES(Rope, RopeCases());

}  // namespace tessera::testing
