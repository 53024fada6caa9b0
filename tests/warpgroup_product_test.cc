#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/rng.h"
#include "kernels/device/cuda.h"
#include "kernels/grouped_matmul.h"
#include "kernels/simt/block.h"
#include "kernels/simt/launch.h"
#include "tests/test_gpu.h"

// Grouped products by sm_90's warpgroup instructions against those by warps: the same factors,
// rounded alike, so that sums agree to fp32's precision. Long enough that every stage is used
// again.

namespace tessera::testing {
namespace {

constexpr int64_t kE = 5, kRows = 300, kN = 136, kK = 520;
// Exactly a tile, one row more than a tile, none, a few, one; and rows of no expert.
const std::vector<int32_t> kOffsets = {0, 128, 257, 257, 289, 290};

size_t U(int64_t i) { return static_cast<size_t>(i); }

template <class T>
std::vector<T> Values(int64_t n, const char* name) {
  const Rng rng(3, name);
  std::vector<T> v;
  for (int64_t i = 0; i < n; ++i)
    v.push_back(T(static_cast<float>(rng.Normal(static_cast<uint64_t>(i)))));
  return v;
}

// Runs both ways, in all orders of threads; `y` is filled with 0.5 before each.
template <class T, class Args>
void ExpectAlike(std::vector<T>* y, const Args& args, const char* what) {
  const auto run = [&](bool warpgroups, simt::Order order) {
    std::fill(y->begin(), y->end(), T(0.5f));
    simt::SetOrder(order, 5);
    simt::WgmmaAtAnySize() = warpgroups;
    RunOnCuda(args);
    simt::WgmmaAtAnySize() = false;
    simt::SetOrder(simt::Order::kForward);
    return std::vector<float>(y->begin(), y->end());
  };
  const std::vector<float> want = run(false, simt::Order::kForward);
  for (const simt::Order order :
       {simt::Order::kForward, simt::Order::kReverse, simt::Order::kRandom, simt::Order::kWarps}) {
    const std::vector<float> got = run(true, order);
    double worst = 0;
    for (size_t i = 0; i < want.size(); ++i)
      worst = std::max(
          worst, std::isfinite(got[i]) ? std::fabs(static_cast<double>(got[i]) - want[i]) : 1e9);
    // Sums of some hundred products of normal numbers; bf16 rounds them.
    EXPECT_LE(worst, sizeof(T) == 2 ? 0.3 : 2e-4) << what << ", order " << Name(order);
    if (simt::ReportsRaces()) break;
  }
}

class WarpgroupProductSimt : public ::testing::Test {
 protected:
  void SetUp() override {
    if (RealGpu()) GTEST_SKIP() << "its arrays are the host's";
    // Rows of no expert may hold anything.
    for (int64_t r = kOffsets.back(); r < kRows; ++r) {
      std::fill_n(x.begin() + r * kK, kK, bf16(NAN));
      std::fill_n(dy.begin() + r * kN, kN, NAN);
    }
    for (int64_t r = 0; r < kRows; ++r) {
      tokens.push_back(r < kOffsets.back() ? static_cast<int32_t>(r * 31 % 200) : 1 << 30);
      slots.push_back(static_cast<int32_t>(r * 7 % kRows));
    }
  }
  std::vector<bf16> x = Values<bf16>(kRows * kK, "x");
  std::vector<float> w = Values<float>(kE * kN * kK, "w"), bias = Values<float>(kE * kN, "bias"),
                     scale = Values<float>(kRows, "scale"), dy = Values<float>(kRows * kN, "dy");
  std::vector<int32_t> tokens, slots;
};

TEST_F(WarpgroupProductSimt, OutputsFromWeightsStoredByOutputs) {
  GroupedMatmulArgs g = {
      .a = {.data = x.data(), .dtype = DType::kBF16, .stride = kK},
      .b = {.data = w.data(), .dtype = DType::kF32, .stride = kK, .order = Order::kTransposed},
      .b_group_stride = kN * kK,
      .bias = bias.data(),
      .row_scale = scale.data(),
      .offsets = kOffsets.data(),
      .rows = kRows,
      .E = kE,
      .N = kN,
      .K = kK,
      .precision = Precision::kBF16};
  std::vector<float> y(U(kRows * kN));
  g.c = {.data = y.data(), .dtype = DType::kF32, .stride = kN, .rows = slots.data()};
  ExpectAlike(&y, g, "scattered");
  g.a.rows = tokens.data();
  g.c.mode = Grad::kAccumulate;
  ExpectAlike(&y, g, "gathered, added");
  std::vector<bf16> half(U(kRows * kN));
  g.c = {.data = half.data(), .dtype = DType::kBF16, .stride = kN};
  ExpectAlike(&half, g, "bf16");
}

TEST_F(WarpgroupProductSimt, GradientsOfInputs) {
  std::vector<float> dx(U(kRows * kK));
  ExpectAlike(&dx,
              GroupedMatmulArgs{.a = {.data = dy.data(), .dtype = DType::kF32, .stride = kN},
                                .b = {.data = w.data(), .dtype = DType::kF32, .stride = kK},
                                .b_group_stride = kN * kK,
                                .c = {.data = dx.data(), .dtype = DType::kF32, .stride = kK},
                                .offsets = kOffsets.data(),
                                .rows = kRows,
                                .E = kE,
                                .N = kK,
                                .K = kN,
                                .precision = Precision::kBF16},
              "dx");
}

TEST_F(WarpgroupProductSimt, GradientsOfWeights) {
  std::vector<float> dw(U(kE * kN * kK));
  for (const Grad mode : {Grad::kOverwrite, Grad::kAccumulate})
    ExpectAlike(&dw,
                GroupedWeightGradArgs{
                    .dy = {.data = dy.data(), .dtype = DType::kF32, .stride = kN},
                    .x = {.data = x.data(), .dtype = DType::kBF16, .stride = kK},
                    .dw = {.data = dw.data(), .dtype = DType::kF32, .stride = kK, .mode = mode},
                    .dw_group_stride = kN * kK,
                    .offsets = kOffsets.data(),
                    .rows = kRows,
                    .E = kE,
                    .N = kN,
                    .K = kK,
                    .precision = Precision::kBF16},
                "dw");
}

}  // namespace
}  // namespace tessera::testing
