#include <Random123/philox.h>

#include <numbers>

#include "ops/noise.h"
#include "tests/contract/op_case.h"

namespace tessera::testing {
namespace {

// Word i of a draw, by the library that the method's authors published.
double UniformOf(const std::string& name, uint64_t seed, uint32_t step, int64_t i) {
  const uint64_t key = Rng(seed, "/" + name).key();
  const r123::Philox4x32::ctr_type counter = {
      {static_cast<uint32_t>(i / 4), static_cast<uint32_t>(static_cast<uint64_t>(i / 4) >> 32),
       step, 0}};
  const auto r =
      r123::Philox4x32()(counter, {{static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)}});
  return ((r[static_cast<size_t>(i % 4)] >> 8) + 0.5) * 0x1p-24;
}

constexpr uint64_t kSeed = 7;

OpCase DropoutCase(const std::string& name, const Shape& shape, double rate) {
  OpCase c{
      .name = name,
      .inputs = {{.name = "x", .shape = shape},
                 {.name = "step", .shape = {1}, .kind = Kind::kInt, .value = TheseValues({3})}}};
  c.run = [=](Context& ctx, const std::vector<Var>& in) {
    ctx.training = true;
    ctx.noise_seed = kSeed;
    ctx.noise_step = in[1].value();
    return std::vector<Var>{Dropout(ctx, "here", in[0], static_cast<float>(rate))};
  };
  c.SetReference([=](const auto& in) {
    using R = ScalarOf<decltype(in)>;
    Array<R> y(shape);
    for (int64_t i = 0; i < shape.elements(); ++i)
      y[i] = UniformOf("here", kSeed, 3, i) >= rate ? in[0][i] * R(1 / (1 - rate)) : R(0);
    return std::vector<Array<R>>{y};
  });
  return c;
}

// The three kinds at a step that stands in memory; x is there to be an input.
OpCase NoiseCase(const std::string& name, const Shape& shape) {
  OpCase c{
      .name = name,
      .inputs = {{.name = "x", .shape = {1}},
                 {.name = "step", .shape = {1}, .kind = Kind::kInt, .value = TheseValues({5})}}};
  c.run = [=](Context& ctx, const std::vector<Var>& in) {
    ctx.noise_seed = kSeed;
    ctx.noise_step = in[1].value();
    return std::vector<Var>{in[0], Var(Noise(ctx, "u", NoiseKind::kUniform, shape)),
                            Var(Noise(ctx, "n", NoiseKind::kNormal, shape)),
                            Var(Noise(ctx, "g", NoiseKind::kGumbel, shape))};
  };
  c.SetReference([=](const auto& in) {
    using R = ScalarOf<decltype(in)>;
    std::vector<Array<R>> out = {in[0], Array<R>(shape), Array<R>(shape), Array<R>(shape)};
    for (int64_t i = 0; i < shape.elements(); ++i) {
      out[1][i] = R(UniformOf("u", kSeed, 5, i));
      const double radius = std::sqrt(-2 * std::log(UniformOf("n", kSeed, 5, i / 2 * 2)));
      const double angle = 2 * std::numbers::pi * UniformOf("n", kSeed, 5, i / 2 * 2 + 1);
      out[2][i] = R(radius * (i % 2 == 0 ? std::cos(angle) : std::sin(angle)));
      out[3][i] = R(-std::log(-std::log(UniformOf("g", kSeed, 5, i))));
    }
    return out;
  });
  return c;
}

std::vector<OpCase> NoiseCases() {
  return {DropoutCase("dropout_one", {1, 1}, 0.5), DropoutCase("dropout", {3, 7, 37}, 0.25),
          DropoutCase("dropout_wide", {2, 640}, 0.9), NoiseCase("kinds", {3, 50}),
          NoiseCase("kinds_long", {1, 1031})};
}

}  // namespace

TESSERA_OP_CASES(Noise, NoiseCases());

}  // namespace tessera::testing
