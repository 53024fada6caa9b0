#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <vector>

#include "core/rng.h"
#include "core/tensor.h"
#include "kernels/device/cuda.h"
#include "kernels/product/grouped_matmul.h"
#include "kernels/simt/block.h"
#include "tests/device/test_gpu.h"

// Grouped products by sm_90's warpgroup instructions against those by warps: the same factors,
// rounded alike, so that sums agree to fp32's precision. Long enough that every stage is used
// again. On a real GPU too.

namespace tessera::testing {
namespace {

constexpr int64_t kE = 5, kRows = 300, kN = 136, kK = 520;
// Exactly a tile, one row more than a tile, none, a few, one; and rows of no expert.
const std::vector<int32_t> kOffsets = {0, 128, 257, 257, 289, 290};

class WarpgroupProductSimt : public ::testing::Test {
 protected:
  WarpgroupProductSimt() : arena_(TouchableMemory(Device::kCuda, int64_t{32} << 20)) {}

  void SetUp() override {
    if (!HasWgmma()) GTEST_SKIP() << Cuda().Name() << " has no warpgroup instructions";
    // Rows of no expert may hold anything.
    for (int64_t r = kOffsets.back(); r < kRows; ++r) {
      std::fill_n(x + r * kK, kK, bf16(NAN));
      std::fill_n(dy + r * kN, kN, NAN);
    }
    for (int64_t r = 0; r < kRows; ++r) {
      tokens[r] = r < kOffsets.back() ? static_cast<int32_t>(r * 31 % 200) : 1 << 30;
      slots[r] = static_cast<int32_t>(r * 7 % kRows);
    }
    std::copy(kOffsets.begin(), kOffsets.end(), offsets);
  }

  template <class T>
  T* Array(int64_t n) {
    arrays_.emplace_back(&arena_, Shape{n}, kDTypeOf<T>);
    return arrays_.back().data<T>();
  }
  template <class T>
  T* Values(int64_t n, const char* name) {
    const Rng rng(3, name);
    T* const v = Array<T>(n);
    for (int64_t i = 0; i < n; ++i)
      v[i] = T(static_cast<float>(rng.Normal(static_cast<uint64_t>(i))));
    return v;
  }

  // Runs both ways, in all orders of threads that there are, and twice in each, which must be the
  // same bits; the n elements of `y` are 0.5 before each.
  template <class T, class Args>
  void ExpectAlike(const T* y, int64_t n, const Args& args, const char* what) {
    const auto run = [&](const char* use, simt::Order order) {
      std::fill_n(const_cast<T*>(y), n, T(0.5f));
      simt::SetOrder(order, 5);
      const ScopedWgmma chosen(use);
      RunOnCuda(args);
      Wait(Device::kCuda, Mark(Device::kCuda));
      simt::SetOrder(simt::Order::kForward);
      return std::vector<float>(y, y + n);
    };
    const std::vector<float> want = run("never", simt::Order::kForward);
    std::vector<float> first;
    for (const simt::Order order : {simt::Order::kForward, simt::Order::kReverse,
                                    simt::Order::kRandom, simt::Order::kWarps}) {
      const std::vector<float> got = run("always", order);
      double worst = 0;
      for (size_t i = 0; i < want.size(); ++i)
        worst = std::max(
            worst, std::isfinite(got[i]) ? std::fabs(static_cast<double>(got[i]) - want[i]) : 1e9);
      // Sums of some hundred products of normal numbers; bf16 rounds them.
      EXPECT_LE(worst, sizeof(T) == 2 ? 0.3 : 2e-4) << what << ", order " << Name(order);
      if (first.empty()) first = got;
      EXPECT_TRUE(got == first) << what << ": other bits in order " << Name(order);
      if (simt::ReportsRaces()) break;
    }
  }

 private:
  Arena arena_;
  std::deque<Tensor> arrays_;

 protected:
  bf16* const x = Values<bf16>(kRows * kK, "x");
  float *const w = Values<float>(kE * kN * kK, "w"), *const bias = Values<float>(kE * kN, "bias"),
               *const scale = Values<float>(kRows, "scale"),
               *const dy = Values<float>(kRows * kN, "dy");
  int32_t *const tokens = Array<int32_t>(kRows), *const slots = Array<int32_t>(kRows),
                 *const offsets = Array<int32_t>(kE + 1);
};

TEST_F(WarpgroupProductSimt, OutputsFromWeightsStoredByOutputs) {
  GroupedMatmulArgs g = {
      .a = {.data = x, .dtype = DType::kBF16, .stride = kK},
      .b = {.data = w, .dtype = DType::kF32, .stride = kK, .order = Order::kTransposed},
      .b_group_stride = kN * kK,
      .bias = bias,
      .row_scale = scale,
      .offsets = offsets,
      .rows = kRows,
      .E = kE,
      .N = kN,
      .K = kK,
      .precision = Precision::kBF16};
  float* const y = Array<float>(kRows * kN);
  g.c = {.data = y, .dtype = DType::kF32, .stride = kN, .rows = slots};
  ExpectAlike(y, kRows * kN, g, "scattered");
  g.a.rows = tokens;
  g.c.mode = Grad::kAccumulate;
  ExpectAlike(y, kRows * kN, g, "gathered, added");
  bf16* const half = Array<bf16>(kRows * kN);
  g.c = {.data = half, .dtype = DType::kBF16, .stride = kN};
  ExpectAlike(half, kRows * kN, g, "bf16");
}

TEST_F(WarpgroupProductSimt, GradientsOfInputs) {
  float* const dx = Array<float>(kRows * kK);
  ExpectAlike(dx, kRows * kK,
              GroupedMatmulArgs{.a = {.data = dy, .dtype = DType::kF32, .stride = kN},
                                .b = {.data = w, .dtype = DType::kF32, .stride = kK},
                                .b_group_stride = kN * kK,
                                .c = {.data = dx, .dtype = DType::kF32, .stride = kK},
                                .offsets = offsets,
                                .rows = kRows,
                                .E = kE,
                                .N = kK,
                                .K = kN,
                                .precision = Precision::kBF16},
              "dx");
}

TEST_F(WarpgroupProductSimt, GradientsOfWeights) {
  float* const dw = Array<float>(kE * kN * kK);
  for (const Grad mode : {Grad::kOverwrite, Grad::kAccumulate})
    ExpectAlike(
        dw, kE * kN * kK,
        GroupedWeightGradArgs{.dy = {.data = dy, .dtype = DType::kF32, .stride = kN},
                              .x = {.data = x, .dtype = DType::kBF16, .stride = kK},
                              .dw = {.data = dw, .dtype = DType::kF32, .stride = kK, .mode = mode},
                              .dw_group_stride = kN * kK,
                              .offsets = offsets,
                              .rows = kRows,
                              .E = kE,
                              .N = kN,
                              .K = kK,
                              .precision = Precision::kBF16},
        "dw");
}

}  // namespace
}  // namespace tessera::testing
