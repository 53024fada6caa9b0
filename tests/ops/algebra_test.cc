#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "ops/ops.h"
#include "tests/check_fails.h"
#include "tests/device/test_gpu.h"

// What op cases do not ask of the general words: infinities, costs, and the words for a mistake.

namespace tessera {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

class Algebra : public ::testing::TestWithParam<Device> {
 protected:
  Algebra()
      : arena_(testing::TouchableMemory(GetParam(), 1 << 22), Arena::Backing::kPoisoned),
        ctx_(GetParam(), &arena_) {
    ctx_.SetRecording(true);
    ctx_.counter = &counter_;
  }
  Tensor Filled(const Shape& shape, float value, DType dtype = DType::kF32) {
    const Tensor t = ctx_.New(shape, dtype);
    for (int64_t i = 0; i < t.elements(); ++i)
      if (dtype == DType::kF32)
        t.data<float>()[i] = value;
      else
        t.data<bf16>()[i] = bf16(value);
    return t;
  }
  void Backward(const Var& y) {
    ctx_.Backward(y, Filled(y.shape(), 1));
    Wait(GetParam(), Mark(GetParam()));
  }

  Arena arena_;
  CostCounter counter_;
  Context ctx_;
};

TEST_P(Algebra, RowsOfMinusInfinityHaveNoSoftmaxAndNoGradient) {
  const Var x = Leaf(Filled({1, 2, 20}, -kInf)), z = Leaf(Filled({1, 2, 20}, -kInf));
  x.data<float>()[27] = 3;  // the second row sees one column
  z.data<float>()[27] = 3;
  const Var y = Softmax(ctx_, x), lse = Reduce(ctx_, Reduction::kLse, z);
  Wait(GetParam(), Mark(GetParam()));
  for (int64_t i = 0; i < 40; ++i) EXPECT_EQ(y.data<float>()[i], i == 27 ? 1 : 0) << i;
  EXPECT_EQ(lse.data<float>()[0], -kInf);
  EXPECT_EQ(lse.data<float>()[1], 3);
  const Tensor ones = Filled({1, 2, 20}, 1);
  const std::pair<Var, Tensor> seeds[] = {{y, ones}, {lse, Filled({1, 2, 1}, 1)}};
  ctx_.Backward(seeds);
  Wait(GetParam(), Mark(GetParam()));
  for (int64_t i = 0; i < 40; ++i) {
    EXPECT_EQ(x.grad()->grad.data<float>()[i], 0) << i;
    EXPECT_EQ(z.grad()->grad.data<float>()[i], i == 27 ? 1 : 0) << i;
  }
}

TEST_P(Algebra, WhatIsMaskedOrNotWantedCostsNothing) {
  const Shape shape = {1, 8, 2 * 4};
  const auto flops = [&](Lower lower, bool both) {
    counter_.Clear();
    const Var q = Leaf(Filled(shape, 1)), k = Leaf(Filled(shape, 1));
    Backward(BatchedMatmul(ctx_, q, both ? k : k.Detach(),
                           {.heads = 2, .b = Order::kTransposed, .lower = lower}));
    const ScopeCost cost = counter_.Total();
    return std::pair{cost.forward.flops, cost.backward.flops};
  };
  constexpr int64_t kDense = 2 * 2 * 8 * 8 * 4, kLower = 2 * 2 * 36 * 4;
  EXPECT_EQ(flops(Lower::kNone, true), std::pair(kDense, 2 * kDense));
  EXPECT_EQ(flops(Lower::kNone, false), std::pair(kDense, kDense));
  EXPECT_EQ(flops(Lower::kResult, true), std::pair(kLower, 2 * kLower));
}

TEST_P(Algebra, MistakesAreNamedWithTheirShapes) {
  const Var x = Var(Filled({1, 3, 8}, 1)), y = Var(Filled({1, 5, 6}, 1));
  testing::ExpectCheckFails([&] { BatchedMatmul(ctx_, x, y, {.heads = 4}); },
                            "a product of [1,3,8] and [1,5,6] in 4 heads");
  testing::ExpectCheckFails([&] { BatchedMatmul(ctx_, x, y, {.heads = 2}); },
                            "batched_matmul takes b as fp32 [1,4,6], not as fp32 [1,5,6]");
  testing::ExpectCheckFails([&] { Softmax(ctx_, x, {.groups = 3}); },
                            "softmax over 3 groups of columns of [1,3,8]");
  testing::ExpectCheckFails([&] { BroadcastAdd(ctx_, x, Var(Filled({8}, 1, DType::kBF16))); },
                            "values of bf16 [8] for fp32 [1,3,8]");
}

INSTANTIATE_TEST_SUITE_P(, Algebra, ::testing::Values(Device::kCpu, Device::kCuda),
                         [](const auto& i) { return std::string(Name(i.param)); });

}  // namespace
}  // namespace tessera
