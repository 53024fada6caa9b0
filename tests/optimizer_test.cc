#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "core/parallel.h"
#include "kernels/adamw.h"
#include "kernels/dispatch.h"
#include "train/schedule.h"

namespace tessera {
namespace {

// Three steps of two tensors, one longer than a block, against the update in double.
TEST(AdamW, MatchesTheEquationInDouble) {
  const int64_t sizes[] = {3, 2 * kOptimizerBlock + 5};
  for (const Isa isa : {Isa::kAvx2, Isa::kAvx512}) {
    if (!SetIsa(isa)) continue;
    std::vector<std::vector<float>> p, g, m, v;
    std::vector<std::vector<double>> rp, rm, rv;
    std::vector<AdamWTensor> tensors;
    for (const int64_t n : sizes) {
      const size_t size = static_cast<size_t>(n);
      p.emplace_back(size), g.emplace_back(size), m.emplace_back(size), v.emplace_back(size);
      for (size_t i = 0; i < size; ++i) p.back()[i] = std::sin(0.1f * static_cast<float>(i));
      rp.emplace_back(p.back().begin(), p.back().end());
      rm.emplace_back(size), rv.emplace_back(size);
    }
    for (size_t k = 0; k < 2; ++k)
      tensors.push_back(
          {p[k].data(), g[k].data(), m[k].data(), v[k].data(), sizes[k], k == 0 ? 0.0f : 0.1f});
    for (int t = 1; t <= 3; ++t) {
      double squares = 0;
      for (size_t k = 0; k < 2; ++k)
        for (size_t i = 0; i < g[k].size(); ++i) {
          g[k][i] = std::cos(0.3f * static_cast<float>(i) + static_cast<float>(t));
          squares += static_cast<double>(g[k][i]) * g[k][i];
        }
      std::vector<double> partial(static_cast<size_t>(OptimizerBlocks(tensors.data(), 2)));
      Dispatch(Device::kCpu,
               SquareSumArgs{.tensors = tensors.data(), .count = 2, .partial = partial.data()});
      EXPECT_NEAR(std::accumulate(partial.begin(), partial.end(), 0.0), squares, 1e-5 * squares);
      const double b1 = 0.9, b2 = 0.95, lr = 0.01, clip = 0.5, eps = 1e-8;
      const double c1 = 1 / (1 - std::pow(b1, t)), c2 = 1 / (1 - std::pow(b2, t));
      Dispatch(Device::kCpu, AdamWArgs{.tensors = tensors.data(),
                                       .count = 2,
                                       .lr = 0.01f,
                                       .beta1 = 0.9f,
                                       .beta2 = 0.95f,
                                       .epsilon = 1e-8f,
                                       .gradient_scale = 0.5f,
                                       .first_correction = static_cast<float>(c1),
                                       .second_correction = static_cast<float>(c2)});
      for (size_t k = 0; k < 2; ++k)
        for (size_t i = 0; i < g[k].size(); ++i) {
          const double x = clip * g[k][i];
          rm[k][i] = b1 * rm[k][i] + (1 - b1) * x;
          rv[k][i] = b2 * rv[k][i] + (1 - b2) * x * x;
          rp[k][i] -= lr * (rm[k][i] * c1 / (std::sqrt(rv[k][i] * c2) + eps) +
                            (k == 0 ? 0.0 : 0.1) * rp[k][i]);
          ASSERT_NEAR(p[k][i], rp[k][i], 1e-6) << Name(isa) << " step " << t << " at " << i;
        }
    }
  }
}

TEST(Schedule, WarmsUpThenFollowsItsCurve) {
  Schedule s{.kind = ScheduleKind::kCosine,
             .peak = 1,
             .final_ratio = 0.1,
             .warmup_steps = 10,
             .steps = 111};
  EXPECT_DOUBLE_EQ(s.At(0), 0.1);
  EXPECT_DOUBLE_EQ(s.At(9), 1);
  EXPECT_DOUBLE_EQ(s.At(10), 1);
  EXPECT_NEAR(s.At(60), 0.55, 1e-12);
  EXPECT_NEAR(s.At(110), 0.1, 1e-12);
  s.kind = ScheduleKind::kConstant;
  EXPECT_DOUBLE_EQ(s.At(110), 1);
  s.kind = ScheduleKind::kWsd;
  EXPECT_DOUBLE_EQ(s.At(80), 1);
  EXPECT_NEAR(s.At(110), 0.1, 1e-12);
  EXPECT_LT(s.At(100), 1);
}

}  // namespace
}  // namespace tessera
