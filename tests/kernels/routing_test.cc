#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/ops.h"

namespace tessera {
namespace {

constexpr int64_t kArenaBytes = 1 << 22;

std::vector<int32_t> Ints(const Tensor& t) {
  const int32_t* data = t.data<int32_t>();
  return {data, data + t.elements()};
}
std::vector<float> Floats(const Tensor& t) {
  const float* data = t.data<float>();
  return {data, data + t.elements()};
}

class RoutingTest : public ::testing::Test {
 protected:
  RoutingTest() { ctx_.metrics = &metrics_; }
  Routing RouteThese(const std::vector<float>& logits, int64_t E, const RoutingOptions& o) {
    const int64_t R = static_cast<int64_t>(logits.size()) / E;
    Tensor t = ctx_.New({R, E}, DType::kF32);
    std::copy(logits.begin(), logits.end(), t.data<float>());
    return Route(ctx_, Var(t), o);
  }
  float Metric(const std::string& name) { return metrics_.at({"", name}).data<float>()[0]; }

  Arena arena_{Arena::Backing::kPoisoned, kArenaBytes};
  Metrics metrics_;
  Context ctx_{Device::kCpu, &arena_};
};

TEST_F(RoutingTest, SortsSlotsByExpertThenToken) {
  const Routing r = RouteThese({3, 2, 1,  //
                                1, 2, 3,  //
                                2, 3, 1},
                               3, {.top_k = 2});
  EXPECT_EQ(Ints(r.expert), (std::vector<int32_t>{0, 1, 2, 1, 1, 0}));
  EXPECT_EQ(Ints(r.offsets), (std::vector<int32_t>{0, 2, 5, 6}));
  EXPECT_EQ(Ints(r.slot_of), (std::vector<int32_t>{0, 5, 1, 3, 4, 2}));
  EXPECT_EQ(Ints(r.token_of), (std::vector<int32_t>{0, 2, 0, 1, 2, 1}));
  EXPECT_EQ(Ints(r.row_of), (std::vector<int32_t>{0, 2, 5, 3, 4, 1}));
}

TEST_F(RoutingTest, TiesGoToTheLowerExpert) {
  const Routing r = RouteThese(std::vector<float>(2 * 37, 0.5f), 37, {.top_k = 3});
  EXPECT_EQ(Ints(r.expert), (std::vector<int32_t>{0, 1, 2, 0, 1, 2}));
  for (const float w : Floats(r.weight.value())) EXPECT_FLOAT_EQ(w, 1.0f / 3);
}

TEST_F(RoutingTest, CapacityKeepsTheFirstTokens) {
  // Five tokens choose expert 0 and one expert 1; each takes ceil(1 * 6 / 2) = 3.
  const std::vector<float> logits = {1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 1, 0};
  const RoutingOptions o{.top_k = 1, .softmax = RouterSoftmax::kAll, .capacity_factor = 1.0};
  ctx_.training = true;
  const Routing r = RouteThese(logits, 2, o);
  EXPECT_EQ(Ints(r.offsets), (std::vector<int32_t>{0, 3, 4}));
  EXPECT_EQ(Ints(r.row_of), (std::vector<int32_t>{0, 1, 2, 3, -1, -1}));
  EXPECT_EQ(Ints(r.slot_of), (std::vector<int32_t>{0, 1, 2, 3, 4, 5}));
  EXPECT_GT(r.weight.data<float>()[2], 0);
  EXPECT_EQ(r.weight.data<float>()[4], 0);
  EXPECT_EQ(r.weight.data<float>()[5], 0);
  EXPECT_FLOAT_EQ(Metric("dropped"), 2.0f / 6);

  ctx_.training = false;
  EXPECT_EQ(Ints(RouteThese(logits, 2, o).offsets), (std::vector<int32_t>{0, 5, 6}));
  EXPECT_FLOAT_EQ(Metric("dropped"), 0);
}

TEST_F(RoutingTest, ReportsLoads) {
  // The router is sure of its choice, so that the entropy is that of a distribution at one point.
  RouteThese({50, 0, 0, 0, 50, 0, 0, 0, 50, 0, 0, 0, 0, 0, 50, 0}, 4, {.top_k = 1});
  EXPECT_EQ(Floats(metrics_.at({"", "load"})), (std::vector<float>{0.75f, 0, 0.25f, 0}));
  EXPECT_FLOAT_EQ(Metric("max_violation"), 2);
  EXPECT_NEAR(Metric("router_entropy"), 0, 1e-6);
  RouteThese(std::vector<float>(8, 3.0f), 4, {.top_k = 4});
  EXPECT_FLOAT_EQ(Metric("max_violation"), 0);
  EXPECT_FLOAT_EQ(Metric("router_entropy"), std::log(4.0f));
}

// A model that has diverged must be seen in its loss, not in a crash.
TEST_F(RoutingTest, BrokenLogitsStillRouteEachTokenToDifferentExperts) {
  const float nan = std::nanf(""), inf = INFINITY;
  const Routing r =
      RouteThese({nan, nan, nan, nan, 1, -inf, nan, inf, -inf, -inf, -inf, -inf}, 4, {.top_k = 3});
  const std::vector<int32_t> e = Ints(r.expert);
  for (size_t t = 0; t < 3; ++t) {
    EXPECT_NE(e[3 * t], e[3 * t + 1]);
    EXPECT_NE(e[3 * t], e[3 * t + 2]);
    EXPECT_NE(e[3 * t + 1], e[3 * t + 2]);
  }
  EXPECT_EQ(Ints(r.offsets).back(), 9);
  EXPECT_TRUE(std::isnan(r.weight.data<float>()[0]));
}

// A router that only balances, or whose weights are constants to what uses them.
TEST_F(RoutingTest, LossesReachLogitsWhoseWeightsAreNotUsed) {
  ctx_.training = true;
  const RoutingOptions o{
      .top_k = 2, .softmax = RouterSoftmax::kAll, .balance_loss = 0.5, .z_loss = 0.25};
  const auto gradient = [&](bool used) {
    ctx_.SetRecording(true);
    Tensor t = ctx_.New({3, 4}, DType::kF32);
    for (int64_t i = 0; i < 12; ++i) t.data<float>()[i] = static_cast<float>(i * i % 7) / 3;
    const Var logits = Leaf(t);
    const Routing r = Route(ctx_, logits, o);
    const Var y = Scale(ctx_, used ? r.weight : r.weight.Detach(), 1);
    ctx_.Backward(y, ctx_.Zeros({3, 2}, DType::kF32));
    EXPECT_TRUE(logits.grad()->started);
    return logits.grad()->started ? Floats(logits.grad()->grad) : std::vector<float>();
  };
  const std::vector<float> want = gradient(true);
  EXPECT_EQ(gradient(false), want);
  EXPECT_GT(*std::max_element(want.begin(), want.end()), 0);
}

TEST(ExpertCapacity, RoundsUpAndStaysPossible) {
  EXPECT_EQ(ExpertCapacity(1.25, 100, 2, 8), 32);  // 31.25
  EXPECT_EQ(ExpertCapacity(1, 8, 1, 8), 1);
  EXPECT_EQ(ExpertCapacity(0.01, 8, 1, 8), 1);
  EXPECT_EQ(ExpertCapacity(100, 8, 2, 8), 8);  // an expert is chosen at most once by a token
}

}  // namespace
}  // namespace tessera
