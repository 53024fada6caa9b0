#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/parallel.h"
#include "kernels/dispatch.h"
#include "kernels/optimiser/adamw.h"
#include "tests/device/test_gpu.h"
#include "train/schedule.h"

namespace tessera {
namespace {

// Three steps of two tensors, one longer than a block, against the update in double.
TEST(AdamW, MatchesTheEquationInDouble) {
  const int64_t sizes[] = {3, 2 * kOptimizerBlock + 5};
  struct Way {
    Device device;
    Isa isa;
  };
  if (testing::RealGpu()) GTEST_SKIP() << "its arrays are the host's";
  for (const auto& [device, isa] : {Way{Device::kCpu, Isa::kAvx2}, Way{Device::kCpu, Isa::kAvx512},
                                    Way{Device::kCuda, Isa::kAvx2}}) {
    if (!SetIsa(isa)) continue;
    StepOutcome outcome = {};
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
      Dispatch(device,
               SquareSumArgs{.tensors = tensors.data(), .count = 2, .partial = partial.data()});
      const double b1 = 0.9, b2 = 0.95, lr = 0.01, clip = 0.5 * std::sqrt(squares), eps = 1e-8;
      const double c1 = 1 / (1 - std::pow(b1, t)), c2 = 1 / (1 - std::pow(b2, t));
      const OptimizerStep step = {.lr = 0.01f,
                                  .clip = static_cast<float>(clip),
                                  .first_correction = static_cast<float>(c1),
                                  .second_correction = static_cast<float>(c2)};
      const float losses[] = {3, 5}, shares[] = {0.25f, 0.75f};
      Dispatch(device, StepOutcomeArgs{.partial = partial.data(),
                                       .blocks = static_cast<int64_t>(partial.size()),
                                       .loss = losses,
                                       .share = shares,
                                       .count = 2,
                                       .step = &step,
                                       .outcome = &outcome});
      EXPECT_EQ(outcome.loss, 4.5);
      EXPECT_NEAR(outcome.grad_norm, std::sqrt(squares), 1e-5 * std::sqrt(squares));
      EXPECT_NEAR(outcome.gradient_scale, 0.5, 1e-5);
      const AdamWArgs update = {.tensors = tensors.data(),
                                .count = 2,
                                .beta1 = 0.9f,
                                .beta2 = 0.95f,
                                .epsilon = 1e-8f,
                                .step = &step,
                                .outcome = &outcome};
      Dispatch(device, update);
      for (size_t k = 0; k < 2; ++k)
        for (size_t i = 0; i < g[k].size(); ++i) {
          const double x = 0.5 * g[k][i];
          rm[k][i] = b1 * rm[k][i] + (1 - b1) * x;
          rv[k][i] = b2 * rv[k][i] + (1 - b2) * x * x;
          rp[k][i] -= lr * (rm[k][i] * c1 / (std::sqrt(rv[k][i] * c2) + eps) +
                            (k == 0 ? 0.0 : 0.1) * rp[k][i]);
          ASSERT_NEAR(p[k][i], rp[k][i], 1e-6)
              << Name(device) << " " << Name(isa) << " step " << t << " at " << i;
        }
    }
  }
}

// After a loss that is not finite nothing changes, even if the next one is.
TEST(AdamW, StopsForGood) {
  if (testing::RealGpu()) GTEST_SKIP() << "its arrays are the host's";
  for (const Device device : {Device::kCpu, Device::kCuda}) {
    float p = 1, g = 1, m = 0, v = 0, share = 1;
    const AdamWTensor tensor = {&p, &g, &m, &v, 1, 0.1f};
    const double partial = 1;
    const OptimizerStep step = {.lr = 1, .clip = 0, .first_correction = 1, .second_correction = 1};
    StepOutcome outcome = {};
    for (const float loss : {NAN, 2.0f}) {
      Dispatch(device, StepOutcomeArgs{.partial = &partial,
                                       .blocks = 1,
                                       .loss = &loss,
                                       .share = &share,
                                       .count = 1,
                                       .step = &step,
                                       .outcome = &outcome});
      Dispatch(device, AdamWArgs{.tensors = &tensor,
                                 .count = 1,
                                 .beta1 = 0.9f,
                                 .beta2 = 0.9f,
                                 .epsilon = 1e-8f,
                                 .step = &step,
                                 .outcome = &outcome});
      EXPECT_NE(outcome.halted, 0);
      EXPECT_EQ(p, 1);
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
