#include "kernels/product/grouped_matmul.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <vector>

#include "core/parallel.h"
#include "kernels/dispatch.h"

namespace tessera {
namespace {

std::vector<float> Values(int64_t n, uint32_t seed) {
  std::vector<float> v;
  uint32_t x = seed * 2654435761u + 1;
  for (int64_t i = 0; i < n; ++i) {
    x = x * 1664525u + 1013904223u;
    v.push_back(static_cast<float>(x >> 8) / 16777216.0f - 0.5f);
  }
  return v;
}
std::vector<bf16> Round(const std::vector<float>& v) {
  std::vector<bf16> r;
  for (float f : v) r.push_back(bf16(f));
  return r;
}

// Experts with no rows, with one, with few, with many; and rows of no expert at the end.
const std::vector<int32_t> kOffsets = {0, 0, 1, 1, 10, 97, 340, 340};
constexpr int64_t kExperts = 7, kRows = 345, kTokens = 50, kN = 45, kK = 70;
size_t U(int64_t i) { return static_cast<size_t>(i); }

struct Data {
  std::vector<float> x = Values(kTokens * kK, 1), w = Values(kExperts * kN * kK, 2),
                     bias = Values(kExperts * kN, 3), scale = Values(kRows, 4),
                     dy = Values(kRows * kN, 5);
  std::vector<int32_t> tokens, slots;  // of each row: the token it reads, the row it writes
  Data() {
    for (int64_t r = 0; r < kRows; ++r) {
      tokens.push_back(static_cast<int32_t>(r * 31 % kTokens));
      slots.push_back(static_cast<int32_t>(r * 2 % kRows));
    }
  }
};

// For every instruction set and 1 to 3 threads: fills y with `old`, runs, compares with want (NaN:
// must not be touched), and with the bits of one thread.
void Check(const std::vector<double>& want, float old, double bar,
           const std::function<void(float*)>& run) {
  for (Isa isa : {Isa::kAvx2, Isa::kAvx512}) {
    if (!SetIsa(isa)) continue;
    SCOPED_TRACE(Name(isa));
    std::vector<float> one;
    for (int threads : {1, 2, 3}) {
      SetThreads(threads);
      std::vector<float> y(want.size(), old);
      run(y.data());
      for (size_t i = 0; i < y.size(); ++i) {
        if (std::isnan(want[i])) {
          ASSERT_EQ(y[i], old) << "touched " << i;
        } else {
          ASSERT_NEAR(y[i], want[i], bar) << "at " << i;
        }
      }
      if (threads == 1) one = y;
      ASSERT_EQ(y, one) << threads << " threads";
    }
  }
  SetThreads(0);
  SetIsa(Supported(Isa::kAvx512) ? Isa::kAvx512 : Isa::kAvx2);
}

TEST(GroupedMatmul, GathersScalesAndScatters) {
  const Data d;
  const std::vector<bf16> x16 = Round(d.x);
  for (const DType t : {DType::kF32, DType::kBF16})
    for (const Grad mode : {Grad::kOverwrite, Grad::kAccumulate}) {
      std::vector<double> want(U(kRows * kN), std::nan(""));
      for (int64_t e = 0; e < kExperts; ++e)
        for (int64_t r = kOffsets[U(e)]; r < kOffsets[U(e + 1)]; ++r)
          for (int64_t j = 0; j < kN; ++j) {
            double s = 0;
            for (int64_t k = 0; k < kK; ++k)
              s += double{d.x[U(d.tokens[U(r)] * kK + k)]} * d.w[U((e * kN + j) * kK + k)];
            want[U(d.slots[U(r)] * kN + j)] =
                s * d.scale[U(r)] + d.bias[U(e * kN + j)] + (mode == Grad::kAccumulate ? 7 : 0);
          }
      const void* x = t == DType::kF32 ? static_cast<const void*>(d.x.data()) : x16.data();
      Check(want, 7, t == DType::kF32 ? 1e-5 : 0.02, [&](float* y) {
        Dispatch(
            Device::kCpu,
            GroupedMatmulArgs{.a = {x, t, kK, Order::kPlain, d.tokens.data()},
                              .b = {d.w.data(), DType::kF32, kK, Order::kTransposed},
                              .b_group_stride = kN * kK,
                              .c = {y, DType::kF32, kN, mode, d.slots.data()},
                              .bias = d.bias.data(),
                              .row_scale = d.scale.data(),
                              .offsets = kOffsets.data(),
                              .rows = kRows,
                              .E = kExperts,
                              .N = kN,
                              .K = kK,
                              .precision = t == DType::kF32 ? Precision::kF32 : Precision::kBF16});
      });
    }
}

TEST(GroupedMatmul, InputGradient) {
  const Data d;
  std::vector<double> want(U(kRows * kK), std::nan(""));
  for (int64_t e = 0; e < kExperts; ++e)
    for (int64_t r = kOffsets[U(e)]; r < kOffsets[U(e + 1)]; ++r)
      for (int64_t k = 0; k < kK; ++k) {
        double s = 0;
        for (int64_t j = 0; j < kN; ++j)
          s += double{d.dy[U(r * kN + j)]} * d.w[U((e * kN + j) * kK + k)];
        want[U(r * kK + k)] = s;
      }
  Check(want, 7, 1e-5, [&](float* dx) {
    Dispatch(Device::kCpu, GroupedMatmulArgs{.a = {d.dy.data(), DType::kF32, kN},
                                             .b = {d.w.data(), DType::kF32, kK},
                                             .b_group_stride = kN * kK,
                                             .c = {dx, DType::kF32, kK},
                                             .offsets = kOffsets.data(),
                                             .rows = kRows,
                                             .E = kExperts,
                                             .N = kK,
                                             .K = kN});
  });
}

TEST(GroupedMatmul, WeightAndBiasGradients) {
  const Data d;
  for (const Grad mode : {Grad::kOverwrite, Grad::kAccumulate}) {
    const double old = mode == Grad::kAccumulate ? 7 : 0;
    std::vector<double> dw(U(kExperts * kN * kK), old), db(U(kExperts * kN), old);
    for (int64_t e = 0; e < kExperts; ++e)
      for (int64_t r = kOffsets[U(e)]; r < kOffsets[U(e + 1)]; ++r)
        for (int64_t j = 0; j < kN; ++j) {
          const double g = d.dy[U(r * kN + j)];
          db[U(e * kN + j)] += g;
          for (int64_t k = 0; k < kK; ++k)
            dw[U((e * kN + j) * kK + k)] += g * d.x[U(d.tokens[U(r)] * kK + k)];
        }
    Check(dw, 7, 2e-5, [&](float* y) {
      Dispatch(Device::kCpu, GroupedWeightGradArgs{
                                 .dy = {d.dy.data(), DType::kF32, kN},
                                 .x = {d.x.data(), DType::kF32, kK, Order::kPlain, d.tokens.data()},
                                 .dw = {y, DType::kF32, kK, mode},
                                 .dw_group_stride = kN * kK,
                                 .offsets = kOffsets.data(),
                                 .rows = kRows,
                                 .E = kExperts,
                                 .N = kN,
                                 .K = kK});
    });
    Check(db, 7, 2e-5, [&](float* y) {
      Dispatch(Device::kCpu, GroupedColumnSumArgs<float>{d.dy.data(), kN, y, mode, kOffsets.data(),
                                                         kRows, kExperts, kN});
    });
  }
}

}  // namespace
}  // namespace tessera
