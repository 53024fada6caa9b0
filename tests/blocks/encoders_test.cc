#include <gtest/gtest.h>

#include <algorithm>

#include "core/rng.h"
#include "tests/contract/block_run.h"

// Approximations of attention that become it at their limit.

namespace tessera::testing {
namespace {

constexpr int64_t kB = 2, kT = 24, kD = 16;

std::vector<float> Values(Subject& s, const std::string& name) {
  for (const Parameter& p : s.parameters().all())
    if (p.name.ends_with("." + name))
      return {p.var.data<float>(), p.var.data<float>() + p.var.shape().elements()};
  ADD_FAILURE() << "no parameter " << name;
  return {};
}
void Set(Subject& s, const std::string& name, const std::vector<float>& values) {
  for (const Parameter& p : s.parameters().all())
    if (p.name.ends_with("." + name)) {
      ASSERT_EQ(p.var.shape().elements(), static_cast<int64_t>(values.size())) << name;
      std::copy(values.begin(), values.end(), p.var.data<float>());
      return;
    }
  FAIL() << "no parameter " << name;
}

// The block's results beside those of attention with the same weights, as a share of their size.
double Distance(Subject& s) {
  Subject attention({"attention", "{heads: 2, causal: false, rope: none}", kD}, Device::kCpu);
  std::vector<float> qkv;
  for (const char* name : {"q", "k", "v"})
    for (const float v : Values(attention, name)) qkv.push_back(3 * v);
  for (const char* name : {"q", "k", "v"}) {
    std::vector<float> w = Values(attention, name);
    for (float& v : w) v *= 3;
    Set(attention, name, w);
  }
  Set(s, "qkv", qkv);
  Set(s, "out", Values(attention, "out"));
  std::vector<double> x(static_cast<size_t>(kB * kT * kD));
  for (size_t i = 0; i < x.size(); ++i) x[i] = Rng(4, "x").Normal(i);
  const Outcome want = RunBlock(attention, x, kB, kT, {}), got = RunBlock(s, x, kB, kT, {});
  double difference = 0, size = 0;
  for (size_t i = 0; i < want.y.size(); ++i) {
    difference += (got.y[i] - want.y[i]) * (got.y[i] - want.y[i]);
    size += want.y[i] * want.y[i];
  }
  return std::sqrt(difference / size);
}

TEST(Encoders, NystromformerWithALandmarkATokenIsAttention) {
  const auto with = [](const char* keys) {
    Subject s({"nystromformer", keys, kD}, Device::kCpu);
    return Distance(s);
  };
  EXPECT_LT(with("{heads: 2, landmarks: 24, conv: 0, steps: 30}"), 1e-3);
  EXPECT_GT(with("{heads: 2, landmarks: 2, conv: 0, steps: 30}"), 1e-2);
}

TEST(Encoders, LinformerWithEachKeyForItselfIsAttention) {
  Subject s({"linformer", "{heads: 2, rank: 24, length: 24}", kD}, Device::kCpu);
  EXPECT_GT(Distance(s), 1e-2);
  std::vector<float> each(kT * kT);
  for (int64_t t = 0; t < kT; ++t) each[static_cast<size_t>(t * kT + t)] = 1;
  Set(s, "e", each);
  Set(s, "f", each);
  EXPECT_LT(Distance(s), 1e-5);
}

}  // namespace
}  // namespace tessera::testing
