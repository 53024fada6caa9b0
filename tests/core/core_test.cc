#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "core/arena.h"
#include "core/check_error.h"
#include "core/parallel.h"
#include "core/rng.h"
#include "core/sizes.h"
#include "core/tensor.h"
#include "tests/check_fails.h"

namespace tessera {
namespace {

// Logs, then lets the exception come; or throws its own.
TEST(Check, AHostMayTakeItsFailure) {
  static std::string heard;
  heard.clear();
  const auto fails = [](int size) { TESSERA_CHECK(size > 3, "a size of %d", size); };
  CheckHandler before = SetCheckHandler([](const char* message) { heard = message; });
  EXPECT_EQ(before, nullptr);
  testing::ExpectCheckFails([&] { fails(2); }, "a size of 2");
  EXPECT_NE(heard.find("core_test.cc"), std::string::npos) << heard;
  EXPECT_NE(heard.find("'size > 3' does not hold: a size of 2"), std::string::npos) << heard;
  before = SetCheckHandler([](const char*) { throw 7; });
  EXPECT_NE(before, nullptr);
  EXPECT_THROW(fails(1), int);
  SetCheckHandler(nullptr);
  testing::ExpectCheckFails([&] { fails(0); }, "a size of 0");
}

TEST(Tensor, BorrowsRowsOfAnotherOwner) {
  const auto owner = std::make_shared<std::vector<float>>(24);
  for (size_t i = 0; i < 24; ++i) (*owner)[i] = static_cast<float>(i);
  {
    Tensor part;
    {
      const Tensor t = Tensor::Borrow(owner->data(), {2, 2, 4}, 6, DType::kF32, owner);
      EXPECT_EQ(owner.use_count(), 2);
      EXPECT_FALSE(t.contiguous());
      EXPECT_EQ(t.data<float>(), owner->data());
      part = t[1].Slice(1, 2);
      EXPECT_TRUE(part.SharesMemory(t));
    }
    EXPECT_EQ(owner.use_count(), 2) << "a part keeps the owner";
    EXPECT_EQ(part.data<float>()[0], 13);
    EXPECT_EQ(part.data<float>()[part.stride() + 1], 20);
  }
  EXPECT_EQ(owner.use_count(), 1);
  testing::ExpectCheckFails(
      [&] {
        Tensor::Borrow(owner->data(), {4, 6}, 5, DType::kF32, owner);
      },
      "rows 5 apart");
  testing::ExpectCheckFails(
      [&] {
        Tensor::Borrow(reinterpret_cast<char*>(owner->data()) + 1, {4}, 4, DType::kF32, owner);
      },
      "fp32 [4] borrowed at");
  testing::ExpectCheckFails([] { Tensor::Borrow(nullptr, {4}, 4, DType::kF32, nullptr); },
                            "borrowed at");
}

TEST(Sizes, ProductsStopAtTheirBound) {
  constexpr int64_t big = int64_t{1} << 40;
  EXPECT_EQ(CheckedProduct({}), 1);
  EXPECT_EQ(CheckedProduct({3, 5, 7}), 105);
  EXPECT_EQ(CheckedProduct({3, 5, 7}, 104), 105);
  EXPECT_EQ(CheckedProduct({3, 5, 8}, 104), 105);
  EXPECT_EQ(CheckedProduct({big, big, big}), int64_t{1} << 62);
  EXPECT_EQ(CheckedProduct({big, big, 0}), 0);
  EXPECT_EQ(CheckedProduct({0, INT64_MAX}), 0);
  EXPECT_EQ(SaturatingSum(INT64_MAX, 1), INT64_MAX);
  EXPECT_EQ(SaturatingSum(2, 3), 5);
}

TEST(Sizes, NoTensorAndNoArenaOverflows) {
  Arena arena(Arena::Backing::kMeta, 0);
  constexpr int64_t k = int64_t{1} << 31;
  EXPECT_THROW(Tensor(&arena, {k, k, k}, DType::kF32), SizeError);
  EXPECT_THROW(Tensor(&arena, {INT64_MAX}, DType::kF32), SizeError);
  EXPECT_EQ(arena.peak_bytes(), 0);
  std::vector<Tensor> all;
  EXPECT_THROW(
      for (int i = 0; i < 100; ++i) all.emplace_back(&arena, Shape{1 << 27, 1 << 27}, DType::kF32),
      SizeError);
  EXPECT_EQ(all.size(), 16u);
}

TEST(Arena, ReusesFreedBlocksAndRemembersThePeak) {
  Arena arena(Arena::Backing::kMeta, 1);
  const int64_t a = arena.Allocate(100), b = arena.Allocate(64), c = arena.Allocate(1);
  EXPECT_EQ(a, 0);
  EXPECT_EQ(b, 128);
  EXPECT_EQ(c, 192);
  arena.Free(a, 100);
  arena.Free(b, 64);
  EXPECT_EQ(arena.Allocate(190), 0) << "two neighbouring holes are one";
  EXPECT_EQ(arena.peak_bytes(), 256);
  EXPECT_EQ(arena.live_bytes(), 256);
}

TEST(Arena, PoisonedBlocksAreNaNAndGuarded) {
  Arena arena(Arena::Backing::kPoisoned, 1 << 20);
  const int64_t at = arena.Allocate(12);
  float* p = static_cast<float*>(arena.At(at));
  EXPECT_TRUE(std::isnan(p[0]) && std::isnan(p[2]));
  p[3] = 1;
  testing::ExpectCheckFails([&] { arena.Free(at, 12); }, "write at byte 12 of a block of 12");
}

TEST(Arena, RefusesMoreThanItHas) {
  Arena arena(Arena::Backing::kMemory, 1 << 16);
  testing::ExpectCheckFails([&] { arena.Allocate(1 << 17); }, "cannot hold");
}

TEST(Tensor, SlicesAndReshapesAreViews) {
  Arena arena(Arena::Backing::kMemory, 1 << 20);
  Tensor t(&arena, {2, 3, 8}, DType::kF32);
  for (int64_t i = 0; i < 48; ++i) t.data<float>()[i] = static_cast<float>(i);
  const Tensor s = t.Slice(2, 4);
  EXPECT_EQ(s.stride(), 8);
  EXPECT_EQ(s.data<float>()[0], 2);
  EXPECT_EQ(s.Reshape({6, 4}).data<float>()[8], 10);
  EXPECT_EQ(t[1].data<float>()[0], 24);
  testing::ExpectCheckFails([&] { s.Reshape({24}); }, "rows 8 apart");
  testing::ExpectCheckFails([&] { t.data<bf16>(); }, "fp32 read as bf16");
}

TEST(DType, HalfConversionsRoundToNearestEvenForEveryValue) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    bf16 b;
    b.bits = static_cast<uint16_t>(bits);
    const float f = static_cast<float>(b);
    if (std::isnan(f)) {
      EXPECT_TRUE(std::isnan(static_cast<float>(bf16(f))));
    } else {
      EXPECT_EQ(bf16(f).bits, bits);
    }
    f16 h;
    h.bits = static_cast<uint16_t>(bits);
    const float g = static_cast<float>(h);
    if (!std::isnan(g)) {
      EXPECT_EQ(f16(g).bits, bits);
    }
  }
  EXPECT_EQ(static_cast<float>(bf16(1.00390625f)), 1.0f) << "a tie goes to the even";
  EXPECT_EQ(static_cast<float>(bf16(1.01171875f)), 1.015625f);
}

TEST(Rng, IsAFunctionOfSeedNameAndIndex) {
  const Rng a(1, "layers[0].gla.q"), same(1, "layers[0].gla.q"), other(1, "layers[0].gla.k");
  EXPECT_EQ(a.Bits(5), same.Bits(5));
  EXPECT_NE(a.Bits(5), other.Bits(5));
  EXPECT_NE(a.Bits(5), Rng(2, "layers[0].gla.q").Bits(5));
  double sum = 0, squares = 0;
  const int n = 100000;
  for (int i = 0; i < n; ++i) {
    const double x = a.Normal(static_cast<uint64_t>(i));
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / n, 0, 0.02);
  EXPECT_NEAR(squares / n, 1, 0.02);
}

TEST(ParallelFor, RunsEveryChunkOnceOnAnyNumberOfThreads) {
  const int before = Threads();
  for (const int threads : {1, 2, 5}) {
    SetThreads(threads);
    for (const int64_t chunks : {0, 1, 2, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<size_t>(chunks));
      ParallelFor(chunks, [&](int64_t c) { runs[static_cast<size_t>(c)].fetch_add(1); });
      for (const auto& r : runs) EXPECT_EQ(r.load(), 1);
    }
  }
  std::atomic<int> inner{0};
  ParallelFor(4, [&](int64_t) { ParallelFor(8, [&](int64_t) { inner.fetch_add(1); }); });
  EXPECT_EQ(inner.load(), 32);
  SetThreads(before);
}

}  // namespace
}  // namespace tessera
