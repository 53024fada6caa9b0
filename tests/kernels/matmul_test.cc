#include "kernels/product/matmul.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/parallel.h"
#include "kernels/dispatch.h"

namespace tessera {
namespace {

uint32_t Hash(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

// A stored matrix of either type, with a few elements of NaN between its rows.
struct Stored {
  DType dtype;
  int64_t rows, columns, stride;
  std::vector<float> f32;
  std::vector<bf16> half;

  Stored(DType t, int64_t r, int64_t c, uint32_t seed) : dtype(t), rows(r), columns(c) {
    stride = c + 3;
    for (int64_t i = 0; i < r * stride; ++i) {
      const float v =
          static_cast<float>(Hash(seed * 7919 + static_cast<uint32_t>(i))) / 4294967296.0f;
      const bf16 h(i % stride < c ? v - 0.5f : std::nanf(""));
      f32.push_back(t == DType::kF32 && i % stride < c ? v - 0.5f : static_cast<float>(h));
      half.push_back(h);
    }
  }
  void* data() { return dtype == DType::kF32 ? static_cast<void*>(f32.data()) : half.data(); }
  double At(int64_t r, int64_t c) const {
    const size_t i = static_cast<size_t>(r * stride + c);
    return dtype == DType::kF32 ? f32[i] : static_cast<float>(half[i]);
  }
};

struct Case {
  int64_t M, N, K;
  Order a_order, b_order;
  DType a, b, c;
  Precision precision;
  Grad mode;
  bool gather, scatter, bias, scale;
};

std::string Describe(const Case& c) {
  return std::to_string(c.M) + "x" + std::to_string(c.N) + "x" + std::to_string(c.K) +
         (c.a_order == Order::kPlain ? " N" : " T") + (c.b_order == Order::kPlain ? "N " : "T ") +
         Name(c.a) + "," + Name(c.b) + "," + Name(c.c) +
         (c.precision == Precision::kF32 ? "" : " precision bf16") +
         (c.mode == Grad::kOverwrite ? "" : " accumulate") + (c.gather ? " gather" : "") +
         (c.scatter ? " scatter" : "") + (c.bias ? " bias" : "") + (c.scale ? " scale" : "");
}

// Runs a case on every instruction set and number of threads; checks values, the gaps between rows,
// and that threads do not change a bit.
void Check(const Case& t) {
  SCOPED_TRACE(Describe(t));
  const bool a_plain = t.a_order == Order::kPlain, b_plain = t.b_order == Order::kPlain;
  Stored a(t.a, a_plain ? t.M : t.K, a_plain ? t.K : t.M, 1);
  Stored b(t.b, b_plain ? t.K : t.N, b_plain ? t.N : t.K, 2);
  const Stored old(t.c, t.M, t.N, 3);
  std::vector<int32_t> gather, scatter;
  for (int64_t i = 0; i < a.rows; ++i)
    gather.push_back(static_cast<int32_t>(Hash(static_cast<uint32_t>(i)) % a.rows));
  for (int64_t i = 0; i < t.M; ++i) scatter.push_back(static_cast<int32_t>(t.M - 1 - i));
  std::vector<float> bias, scale;
  for (int64_t j = 0; j < t.N; ++j) bias.push_back(static_cast<float>(j % 5));
  for (int64_t i = 0; i < t.M; ++i) scale.push_back(static_cast<float>(i % 3) - 0.5f);

  const auto row = [&](int64_t r) { return t.gather ? gather[static_cast<size_t>(r)] : r; };
  std::vector<double> want(static_cast<size_t>(t.M * t.N));
  std::vector<double> magnitude = want;  // of what is added up
  for (int64_t i = 0; i < t.M; ++i) {
    const size_t ui = static_cast<size_t>(i);
    const int64_t to = t.scatter ? scatter[ui] : i;
    for (int64_t j = 0; j < t.N; ++j) {
      double s = 0;
      for (int64_t k = 0; k < t.K; ++k)
        s += (a_plain ? a.At(row(i), k) : a.At(row(k), i)) * (b_plain ? b.At(k, j) : b.At(j, k));
      if (t.scale) s *= scale[ui];
      double m = std::fabs(s) + 0.1 * std::sqrt(static_cast<double>(t.K)) + 1;
      if (t.bias) m += bias[static_cast<size_t>(j)];
      if (t.mode == Grad::kAccumulate) m += std::fabs(old.At(to, j));
      magnitude[static_cast<size_t>(to * t.N + j)] = m;
      if (t.bias) s += bias[static_cast<size_t>(j)];
      if (t.mode == Grad::kAccumulate) s += old.At(to, j);
      want[static_cast<size_t>(to * t.N + j)] = s;
    }
  }
  // Rounding errors of a sum of K terms walk at random: the unit of rounding, times the root of K,
  // times the size of what is added. Factors rounded to bf16 err by 2^-9 each.
  double bar = std::ldexp(std::sqrt(static_cast<double>(t.K) + 4), -24);
  if (t.precision == Precision::kBF16) bar = 0.01;
  const double rounding = t.c == DType::kBF16 ? 1.0 / 256 : 0;  // of the result

  for (Isa isa : {Isa::kAvx2, Isa::kAvx512}) {
    if (!SetIsa(isa)) continue;
    SCOPED_TRACE(Name(isa));
    Stored one = old;
    for (int threads : {1, 2, 3}) {
      SetThreads(threads);
      Stored c = old;
      Dispatch(
          Device::kCpu,
          MatmulArgs{.a = {a.data(), t.a, a.stride, t.a_order, t.gather ? gather.data() : nullptr},
                     .b = {b.data(), t.b, b.stride, t.b_order},
                     .c = {c.data(), t.c, c.stride, t.mode, t.scatter ? scatter.data() : nullptr},
                     .bias = t.bias ? bias.data() : nullptr,
                     .row_scale = t.scale ? scale.data() : nullptr,
                     .M = t.M,
                     .N = t.N,
                     .K = t.K,
                     .precision = t.precision});
      for (int64_t i = 0; i < t.M; ++i)
        for (int64_t j = 0; j < c.stride; ++j) {
          if (j >= t.N) {
            ASSERT_TRUE(std::isnan(c.At(i, j))) << "wrote past row " << i;
            continue;
          }
          const double w = want[static_cast<size_t>(i * t.N + j)];
          ASSERT_NEAR(c.At(i, j), w,
                      bar * magnitude[static_cast<size_t>(i * t.N + j)] + rounding * std::fabs(w))
              << "at " << i << "," << j << " threads " << threads;
          ASSERT_TRUE(threads == 1 || c.At(i, j) == one.At(i, j)) << "bits at " << i << "," << j;
        }
      one = c;
    }
  }
  SetThreads(0);
  SetIsa(Supported(Isa::kAvx512) ? Isa::kAvx512 : Isa::kAvx2);
}

TEST(Matmul, EveryLayoutAndSize) {
  const int64_t sizes[][3] = {{1, 1, 1},     {1, 37, 65},  {2, 64, 64},  {5, 16, 31},
                              {8, 33, 129},  {16, 100, 7}, {17, 17, 17}, {28, 64, 0},
                              {31, 97, 53},  {64, 64, 64}, {97, 1, 3},   {130, 70, 259},
                              {257, 129, 71}};
  for (const auto& s : sizes)
    for (Order a : {Order::kPlain, Order::kTransposed})
      for (Order b : {Order::kPlain, Order::kTransposed})
        for (Precision p : {Precision::kF32, Precision::kBF16})
          Check(
              {s[0], s[1], s[2], a, b, DType::kF32, DType::kF32, DType::kF32, p, Grad::kOverwrite});
}

TEST(Matmul, EveryTypeModeAndFusion) {
  for (int64_t M : {3, 45})
    for (int bits = 0; bits < 1024; ++bits) {
      // All layouts of the first half of the bits, then a mix that meets every pair of the rest.
      const auto bit = [&](int i) { return ((bits >> i) & 1) != 0; };
      if (Hash(static_cast<uint32_t>(bits)) % 4 != 0) continue;
      Check({M, 43, 29, bit(0) ? Order::kTransposed : Order::kPlain,
             bit(1) ? Order::kTransposed : Order::kPlain, bit(2) ? DType::kBF16 : DType::kF32,
             bit(3) ? DType::kBF16 : DType::kF32, bit(4) ? DType::kBF16 : DType::kF32,
             bit(5) ? Precision::kBF16 : Precision::kF32,
             bit(6) ? Grad::kAccumulate : Grad::kOverwrite, bit(7), bit(8), bit(9),
             bit(7) != bit(9)});
    }
}

TEST(Matmul, ManyBlocksOfK) {
  for (DType c : {DType::kF32, DType::kBF16})
    for (Precision p : {Precision::kF32, Precision::kBF16})
      for (bool fused : {false, true}) {
        Check({40, 70, 2053, Order::kTransposed, Order::kPlain, c, DType::kBF16, c, p,
               Grad::kAccumulate, fused, fused, fused, fused});
        Check({40, 70, 1537, Order::kPlain, Order::kTransposed, c, DType::kF32, c, p,
               Grad::kOverwrite, fused, fused, fused, fused});
      }
}

TEST(ColumnSum, Sums) {
  for (Isa isa : {Isa::kAvx2, Isa::kAvx512}) {
    if (!SetIsa(isa)) continue;
    for (int64_t rows : {1, 2, 7, 100})
      for (int64_t C : {1, 8, 31, 200}) {
        Stored x(DType::kF32, rows, C, 5);
        std::vector<float> y(static_cast<size_t>(C), 1.0f);
        Dispatch(Device::kCpu, ColumnSumArgs<float>{x.f32.data(), x.stride, y.data(),
                                                    Grad::kAccumulate, rows, C});
        for (int64_t j = 0; j < C; ++j) {
          double want = 1;
          for (int64_t r = 0; r < rows; ++r) want += x.At(r, j);
          ASSERT_NEAR(y[static_cast<size_t>(j)], want, 1e-5) << rows << " rows, column " << j;
        }
      }
  }
}

}  // namespace
}  // namespace tessera
