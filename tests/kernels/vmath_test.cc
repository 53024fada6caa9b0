#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/dispatch.h"
#include "kernels/pointwise/activation.h"

// Vector mathematics (kernels/cpu/vmath.h) is reached through the activations, whose values and
// gradients are made of it, and measured against double precision.

namespace tessera {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

// x from `low` to `high`, evenly by value, and evenly by exponent on both sides of 0, and specials.
std::vector<float> Dense(double low, double high) {
  std::vector<float> x;
  for (int64_t i = 0; i <= 400000; ++i)
    x.push_back(static_cast<float>(low + (high - low) * static_cast<double>(i) / 400000));
  for (double e = -149; e < 128; e += 1.0 / 512)
    for (const double sign : {-1.0, 1.0}) {
      const double v = sign * std::exp2(e);
      if (v >= low && v <= high) x.push_back(static_cast<float>(v));
    }
  x.push_back(0.0f);
  x.push_back(-0.0f);
  return x;
}

std::vector<float> Values(Activation f, std::vector<float> x) {
  std::vector<float> y(x.size());
  const int64_t n = std::ssize(x);
  Dispatch(Device::kCpu, ActivationArgs<float>{
                             .f = f, .x = {x.data(), n}, .y = {y.data(), n}, .rows = 1, .C = n});
  return y;
}

// The distance in units of the spacing of floats at `want`; results below the smallest normal
// float, which are flushed to 0, count in units of that float.
double Ulp(float got, double want) {
  const float near = static_cast<float>(want);
  if (std::isnan(want)) return std::isnan(got) ? 0 : kInf;
  if (std::isinf(near)) return got == near ? 0 : kInf;
  const double size = std::max(std::fabs(want), double{std::numeric_limits<float>::min()});
  const double spacing = std::exp2(std::floor(std::log2(size)) - 23);
  if (size <= double{std::numeric_limits<float>::min()})
    return std::fabs(double{got} - want) <= size ? 0 : kInf;
  return std::fabs(double{got} - want) / spacing;
}

// The worst distance over x must stay within `bound`.
template <class F>
void ExpectWithin(const char* what, const std::vector<float>& x, const std::vector<float>& y, F f,
                  double bound) {
  double worst = 0;
  size_t at = 0;
  for (size_t i = 0; i < x.size(); ++i)
    if (const double e = Ulp(y[i], f(double{x[i]})); e > worst) {
      worst = e;
      at = i;
    }
  EXPECT_LE(worst, bound) << what << " of " << x[at] << " is " << y[at] << ", not "
                          << f(double{x[at]});
  ::testing::Test::RecordProperty(std::string(what) + "_ulp", std::to_string(worst));
}

class VectorMath : public ::testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    before_ = ActiveIsa();
    if (!SetIsa(GetParam())) GTEST_SKIP() << "this processor has no " << Name(GetParam());
  }
  void TearDown() override { SetIsa(before_); }
  Isa before_;
};

double SigmoidOf(double x) {
  return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x));
}
double SoftplusOf(double x) {
  return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
}
double CdfOf(double x) { return 0.5 * std::erfc(-x * std::sqrt(0.5)); }

void Measure(Activation f, double low, double high, double (*want)(double), double bound) {
  const std::vector<float> x = Dense(low, high);
  ExpectWithin(Name(f), x, Values(f, x), want, bound);
}

double LogSigmoidOf(double x) { return -SoftplusOf(-x); }
double SiluOf(double x) { return x * SigmoidOf(x); }
double GeluOf(double x) { return x * CdfOf(x); }

TEST_P(VectorMath, ValuesAreWithinTwoUlp) {
  Measure(Activation::kExp, -120, 120, std::exp, 1);
  Measure(Activation::kLog, 0, 3.4e38, std::log, 1);
  Measure(Activation::kLog, 0.25, 4, std::log, 1);
  Measure(Activation::kTanh, -20, 20, std::tanh, 2);
  Measure(Activation::kTanh, -1, 1, std::tanh, 2);
  Measure(Activation::kSin, -100, 100, std::sin, 2);
  Measure(Activation::kCos, -100, 100, std::cos, 2);
  // Across the end of the range of polynomials, and to the largest float.
  Measure(Activation::kSin, 29000, 31000, std::sin, 2);
  Measure(Activation::kCos, -31000, -29000, std::cos, 2);
  Measure(Activation::kSin, -3e38, 3e38, std::sin, 2);
}

// Made of several of these: a few roundings more. Below -87 sigmoid, and so silu, is 0.
TEST_P(VectorMath, CompositesAreWithinSixUlp) {
  Measure(Activation::kSigmoid, -100, 100, SigmoidOf, 2.5);
  Measure(Activation::kSoftplus, -100, 100, SoftplusOf, 2);
  Measure(Activation::kLogSigmoid, -100, 100, LogSigmoidOf, 2);
  Measure(Activation::kSilu, -87, 100, SiluOf, 4);
  Measure(Activation::kGelu, -1, 14, GeluOf, 6);
}

// Far below 0 gelu is the tail of a distribution, next to nothing beside x.
TEST_P(VectorMath, TheTailOfGeluIsWithinTenUlp) { Measure(Activation::kGelu, -13, -1, GeluOf, 10); }

TEST_P(VectorMath, LimitsAreThoseOfCmath) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf(""), big = 3e38f;
  const std::vector<float> x = {inf, -inf, nan, big, -big, 0.0f, -0.0f, 1e-42f, -1e-42f};
  const auto expect = [&](Activation f, const std::vector<float>& want) {
    const std::vector<float> y = Values(f, x);
    for (size_t i = 0; i < x.size(); ++i) {
      if (std::isnan(want[i]))
        EXPECT_TRUE(std::isnan(y[i])) << Name(f) << " of " << x[i] << " is " << y[i];
      else
        EXPECT_EQ(y[i], want[i]) << Name(f) << " of " << x[i];
    }
  };
  expect(Activation::kExp, {inf, 0, nan, inf, 0, 1, 1, 1, 1});
  expect(Activation::kLog, {inf, nan, nan, std::log(big), nan, -inf, -inf, std::log(1e-42f), nan});
  expect(Activation::kTanh, {1, -1, nan, 1, -1, 0, 0, 1e-42f, -1e-42f});
  expect(Activation::kSigmoid, {1, 0, nan, 1, 0, 0.5f, 0.5f, 0.5f, 0.5f});
  expect(Activation::kSin, {nan, nan, nan, static_cast<float>(std::sin(double{big})),
                            -static_cast<float>(std::sin(double{big})), 0, 0, 1e-42f, -1e-42f});
  const float ln2 = std::log(2.0f);
  expect(Activation::kSoftplus, {inf, 0, nan, big, 0, ln2, ln2, ln2, ln2});
}

INSTANTIATE_TEST_SUITE_P(, VectorMath, ::testing::Values(Isa::kAvx2, Isa::kAvx512),
                         [](const auto& i) { return std::string(Name(i.param)); });

}  // namespace
}  // namespace tessera
