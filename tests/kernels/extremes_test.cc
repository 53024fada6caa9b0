#include <gtest/gtest.h>

#include <cmath>

#include "arch/tokens.h"
#include "kernels/simt/launch.h"
#include "ops/ops.h"
#include "tests/device/test_gpu.h"

// What is larger, or other, than a model's ordinary work: vocabularies of 256k, ids outside a
// vocabulary, more batch rows than a grid's third dimension holds.

namespace tessera::testing {
namespace {

class Extremes : public ::testing::TestWithParam<Device> {
 protected:
  Tensor Zeros(const Shape& shape, DType dtype = DType::kF32) { return ctx_.Zeros(shape, dtype); }
  Var Input(const Shape& shape) { return Leaf(Zeros(shape)); }
  Tensor Ints(const Shape& shape, const std::vector<int32_t>& values) {
    Tensor t = ctx_.New(shape, DType::kI32);
    std::copy(values.begin(), values.end(), t.data<int32_t>());
    return t;
  }

  Arena arena_{TouchableMemory(GetParam(), int64_t{8} << 30)};
  Context ctx_{GetParam(), &arena_};
};

TEST_P(Extremes, IdsOutsideTheVocabularyGiveNaNAndTouchNothing) {
  constexpr int64_t kV = 5, kD = 3;
  ctx_.SetRecording(true);
  const Tensor values = ctx_.New({kV, kD}, DType::kF32);
  for (int64_t i = 0; i < kV * kD; ++i) values.data<float>()[i] = static_cast<float>(i);
  const Var table = Leaf(values);
  // 13 and 5 differ from known ids in high bits alone; the last two are far outside.
  const std::vector<int32_t> ids = {4, 13, 4, -1, 5, 0, INT32_MAX, INT32_MIN, 4};
  const auto T = static_cast<int64_t>(ids.size());
  const Var y = Embedding(ctx_, Ints({1, T}, ids), table);
  Tensor seed = ctx_.New(y.shape(), DType::kF32);
  for (int64_t t = 0; t < T; ++t)
    for (int64_t i = 0; i < kD; ++i) {
      const int64_t id = ids[static_cast<size_t>(t)];
      const float got = y.data<float>()[t * kD + i];
      if (id >= 0 && id < kV)
        EXPECT_EQ(got, static_cast<float>(id * kD + i)) << id;
      else
        EXPECT_TRUE(std::isnan(got)) << id;
      seed.data<float>()[t * kD + i] = 1;
    }
  ctx_.Backward(y, seed);
  const float counts[kV] = {1, 0, 0, 0, 3};
  for (int64_t i = 0; i < kV * kD; ++i)
    EXPECT_EQ(table.grad()->grad.data<float>()[i], counts[i / kD]) << i;
}

TEST_P(Extremes, TargetsOutsideTheVocabularyGiveALossThatTells) {
  const Var hidden(Zeros({3, 2})), head(Zeros({4, 2}));
  const auto loss = [&](int32_t target) {
    return HeadLoss(ctx_, hidden, head, Ints({3}, {1, target, -1})).data<float>()[0];
  };
  EXPECT_NEAR(loss(3), std::log(4.0f), 1e-6f);
  for (const int32_t target : {4, 4096, INT32_MAX}) EXPECT_TRUE(std::isnan(loss(target))) << target;
}

// Of every op whose work is divided by batch rows: the first block of each of its grids, forward
// and backward.
TEST_P(Extremes, BatchesMayHaveMoreRowsThanAGridsThirdDimension) {
  if (RealGpu() || GetParam() != Device::kCuda) GTEST_SKIP() << "of the executor's grids";
  constexpr int64_t kB = 70001;
  struct Alone {
    Alone() { simt::FirstBlockAlone() = true; }
    ~Alone() { simt::FirstBlockAlone() = false; }
  } alone;
  ctx_.SetRecording(true);
  for (const int64_t T : {1, 2}) {
    const auto in = [&](int64_t C) { return Input({kB, T, C}); };
    const auto back = [&](const Var& y) { ctx_.Backward(y, Zeros(y.shape(), y.dtype())); };
    const AttentionOptions heads{.heads = 2, .kv_heads = 1, .scale = 1};
    back(Attention(ctx_, in(2), in(1), in(1), {}, heads));
    const AttentionOptions many{.heads = 9, .kv_heads = 1, .scale = 1};
    back(Attention(ctx_, in(9), in(1), in(1), {}, many));
    back(CausalConv(ctx_, {.x = in(1), .weight = Input({1, 2}), .bias = Input({1})},
                    LastState::kDrop)
             .y);
    back(GlaScan(ctx_, {.q = in(1), .k = in(1), .v = in(1), .g = in(1), .heads = 1, .scale = 1},
                 LastState::kKeep)
             .y);
    back(SsdScan(ctx_,
                 {.x = in(1),
                  .dt = in(1),
                  .b = in(1),
                  .c = in(1),
                  .A_log = Input({1}),
                  .dt_bias = Input({1}),
                  .D = Input({1}),
                  .N = 1},
                 LastState::kKeep)
             .y);
  }
}

INSTANTIATE_TEST_SUITE_P(OnEachDevice, Extremes, ::testing::Values(Device::kCpu, Device::kCuda));

TEST(CheckTokens, NamesTheFirstIdThatIsInNoVocabulary) {
  const std::vector<int32_t> good = {0, 9, 3}, large = {3, 10, 11}, negative = {-1};
  EXPECT_TRUE(CheckTokens(good, 10, "row 2").ok());
  EXPECT_TRUE(CheckTokens({}, 10, "row 2").ok());
  EXPECT_EQ(CheckTokens(large, 10, "row 2").message(),
            "token 1 of row 2 has id 10, but the model's vocabulary has 10 tokens");
  EXPECT_FALSE(CheckTokens(negative, 10, "row 2").ok());
}

// The most that a head needs besides its inputs and gradients.
int64_t LogitsBytes(int64_t R, int64_t V) {
  Arena arena(Arena::Backing::kMeta, 0);
  Context ctx(Device::kMeta, &arena);
  const Var hidden(ctx.New({R, 1}, DType::kF32)), head(ctx.New({V, 1}, DType::kF32));
  const Tensor targets = ctx.New({R}, DType::kI32);
  const int64_t before = arena.live_bytes();
  HeadLoss(ctx, hidden, head, targets);
  return arena.peak_bytes() - before - R * 4;
}

TEST(HeadLossMemory, IsBoundedForAnyVocabulary) {
  const int64_t most = (int64_t{128} << 20) + 1024;
  for (const int64_t V : {2, 256, 1000, 4096, 50257, 65536, 128256, 262144, 1048576})
    EXPECT_LE(LogitsBytes(16384, V), most) << V;
  EXPECT_LE(LogitsBytes(16384, 262144), most);
  EXPECT_GE(LogitsBytes(16384, 262144), most / 2);  // and yet no more blocks than need be
  // Where 512 rows fit, there are 512 of them, or more of small vocabularies.
  EXPECT_NEAR(LogitsBytes(16384, 256), 2048 * 256 * 4, 1024);
  EXPECT_NEAR(LogitsBytes(16384, 32000), 512 * 32000 * 4, 1024);
}

}  // namespace
}  // namespace tessera::testing
