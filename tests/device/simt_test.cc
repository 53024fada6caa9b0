#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <regex>
#include <string>
#include <thread>
#include <vector>

#include "core/rng.h"
#include "kernels/device/cuda.h"
#include "kernels/pointwise/copy.h"
#include "kernels/simt/sanitizer.h"
#include "tests/device/simt_kernels.h"

// Kernels on the host (kernels/simt): right ones give the same results in every order of their
// threads, and wrong ones are found.

namespace tessera {
namespace {

using namespace simt_kernels;
using simt::Order;

struct Ordering {
  Order order;
  uint64_t seed;
};
std::vector<Ordering> Orderings() {
  std::vector<Ordering> all = {{Order::kForward, 0}, {Order::kReverse, 0}};
  for (uint64_t seed = 0; seed < 4; ++seed)
    for (const Order order : {Order::kRandom, Order::kWarps}) all.push_back({order, seed});
  return all;
}

// Calls body in each order.
void InAllOrders(const std::function<void()>& body) {
  for (const Ordering& o : Orderings()) {
    SCOPED_TRACE(std::string(simt::Name(o.order)) + " " + std::to_string(o.seed));
    simt::SetOrder(o.order, o.seed);
    body();
  }
  simt::SetOrder(Order::kForward);
}

// In how many of the orders right() is false or an Error comes.
int OrdersThatFail(const std::function<bool()>& right) {
  int failed = 0;
  for (const Ordering& o : Orderings()) {
    simt::SetOrder(o.order, o.seed);
    try {
      failed += right() ? 0 : 1;
    } catch (const simt::Error&) {
      ++failed;
    }
  }
  simt::SetOrder(Order::kForward);
  return failed;
}

void ExpectError(const std::function<void()>& body, const std::string& pattern) {
  std::string text = "no error";
  try {
    body();
  } catch (const simt::Error& error) {
    text = error.what();
  }
  EXPECT_TRUE(std::regex_search(text, std::regex(pattern))) << text << "\nis not " << pattern;
}

template <Flaw kFlaw = Flaw::kNone>
bool SumIsRight() {
  std::vector<float> x(5000);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 17);
  float sum = 0;
  Launch(Sum<kFlaw>, 3, 256, 0, x.data(), 5000, &sum);
  return sum == std::accumulate(x.begin(), x.end(), 0.0f);
}

template <Flaw kFlaw = Flaw::kNone>
bool ScanIsRight() {
  std::vector<int> x(256), y(256), want(256);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<int>(i % 7) + 1;
  std::partial_sum(x.begin(), x.end(), want.begin());
  Launch(Scan<kFlaw>, 1, 256, 256 * 4, x.data(), y.data());
  return y == want;
}

TEST(Simt, BlocksReduceAndScan) {
  InAllOrders([] {
    EXPECT_TRUE(SumIsRight());
    EXPECT_TRUE(ScanIsRight());
  });
}

TEST(Simt, LanesMatchAndCountAtomically) {
  std::vector<int> x(1000), want(8);
  const Rng rng(1, "simt");
  for (size_t i = 0; i < x.size(); ++i) ++want[x[i] = static_cast<int>(rng.Below(i, 8))];
  InAllOrders([&] {
    std::vector<int> counts(8);
    Launch(Count, 4, 256, 0, x.data(), 1000, counts.data());
    EXPECT_EQ(counts, want);
  });
}

TEST(Simt, VotesShufflesAndReductionsAreCudas) {
  std::vector<int> x(32);
  for (int i = 0; i < 32; ++i) x[i] = i * 37 % 101 - 40;
  uint32_t positive = 0, any = 0;
  int total = 0, most = x[0], least = x[0], bits = 0;
  for (int i = 0; i < 32; ++i) {
    if (x[i] > 0) positive |= 1u << i;
    if (x[i] > 90) any = 1;
    total += x[i];
    most = std::max(most, x[i]);
    least = std::min(least, x[i]);
    bits ^= x[i];
  }
  InAllOrders([&] {
    std::vector<int> out(32 * kVotes);
    Launch(Votes, 1, 32, 0, x.data(), out.data());
    for (int i = 0; i < 32; ++i) {
      const std::vector<int> want = {static_cast<int>(positive),
                                     static_cast<int>(any),
                                     0,
                                     x[i / 8 * 8 + 5],
                                     x[i >= 3 ? i - 3 : i],
                                     x[i % 16 + 3 < 16 ? i + 3 : i],
                                     x[i ^ 1],
                                     std::popcount(positive),
                                     static_cast<int>(any),
                                     1,
                                     total,
                                     most,
                                     0,
                                     x[i < 16 ? 3 : 19],
                                     least,
                                     bits};
      const std::vector<int> got(out.begin() + i * kVotes, out.begin() + (i + 1) * kVotes);
      EXPECT_EQ(got, want) << "lane " << i;
    }
  });
}

// Small integers, whose products and sums every format here holds exactly.
template <class T>
std::vector<T> Integers(int64_t n, const char* name) {
  const Rng rng(2, name);
  std::vector<T> x(n);
  for (int64_t i = 0; i < n; ++i)
    x[i] = static_cast<T>(static_cast<float>(rng.Below(static_cast<uint64_t>(i), 17)) - 8);
  return x;
}

template <class T>
std::vector<float> Product(const std::vector<T>& a, const std::vector<T>& b, int K) {
  std::vector<float> y(16 * 8);
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 8; ++j)
      for (int k = 0; k < K; ++k)
        y[i * 8 + j] += static_cast<float>(a[i * K + k]) * static_cast<float>(b[k * 8 + j]);
  return y;
}

template <Flaw kFlaw = Flaw::kNone>
bool ProductIsRight() {
  constexpr int K = 80;
  const auto a = Integers<bf16>(16 * K, "a"), b = Integers<bf16>(K * 8, "b");
  std::vector<float> y(16 * 8);
  Launch(MultiplyBf16<kFlaw>, 1, 32, 2 * (16 * 24 + 16 * 8) * 2, a.data(), b.data(), y.data(), K);
  return y == Product(a, b, K);
}

TEST(Simt, CopiesLoadsAndMultipliesMatrices) {
  const auto a = Integers<float>(16 * 8, "a"), b = Integers<float>(8 * 8, "b");
  // Eighths, which need more bits than bf16 has.
  auto half_a = Integers<f16>(16 * 16, "a"), half_b = Integers<f16>(16 * 8, "b");
  for (f16& x : half_a) x = f16(static_cast<float>(x) / 8 + 32);
  InAllOrders([&] {
    EXPECT_TRUE(ProductIsRight());
    std::vector<float> y(16 * 8);
    Launch(MultiplyTf32, 1, 32, 0, a.data(), b.data(), y.data());
    EXPECT_EQ(y, Product(a, b, 8));
    Launch(MultiplyFp16, 1, 32, 0, half_a.data(), half_b.data(), y.data());
    EXPECT_EQ(y, Product(half_a, half_b, 16));
  });
}

TEST(Simt, ATailIsCopiedInPart) {
  alignas(16) float x[128], y[128];
  std::iota(x, x + 128, 1.0f);
  InAllOrders([&] {
    for (const int n : {0, 1, 77, 128}) {
      Launch(CopyTail, 1, 32, 0, x, y, n);
      for (int i = 0; i < 128; ++i) ASSERT_EQ(y[i], i < n ? x[i] : 0) << n << " " << i;
    }
  });
}

TEST(Simt, ConversionsRoundAsTheGpuDoes) {
  EXPECT_EQ(PackBf16(1.0f, -2.0f), 0xc0003f80u);
  EXPECT_EQ(ToTf32(1.0f + 0x1p-11f), std::bit_cast<uint32_t>(1.0f + 0x1p-10f));
  EXPECT_EQ(ToTf32(-1.0f - 0x1p-12f), std::bit_cast<uint32_t>(-1.0f));
  EXPECT_EQ(ToTf32(INFINITY), std::bit_cast<uint32_t>(INFINITY));
}

TEST(Simt, TwoOsThreadsRunGrids) {
  bool right[2] = {true, true};
  const auto run = [&](int i) {
    simt::SetOrder(i == 0 ? Order::kForward : Order::kRandom, 5);
    for (int n = 0; n < 20; ++n) right[i] &= SumIsRight() && ScanIsRight();
  };
  std::thread other(run, 1);
  run(0);
  other.join();
  EXPECT_TRUE(right[0]);
  EXPECT_TRUE(right[1]);
}

TEST(Simt, AMissingBarrierIsSeen) {
  const auto is_seen = [](bool (*right)()) {
    if (!simt::kRacesChecked) {
      EXPECT_GT(OrdersThatFail(right), 0);
      return;
    }
    const auto run = [&] {
      right();
      std::exit(0);
    };
    EXPECT_EXIT(run(), testing::ExitedWithCode(66), "data race .*simt_kernels.h");
  };
  is_seen(SumIsRight<Flaw::kNoBarrier>);
  is_seen(ScanIsRight<Flaw::kNoBarrier>);
}

TEST(Simt, ACopyThatIsNotWaitedForIsSeen) {
  const int all = static_cast<int>(Orderings().size());
  EXPECT_EQ(OrdersThatFail(ProductIsRight<Flaw::kNoWait>), all);
  EXPECT_EQ(OrdersThatFail(ProductIsRight<Flaw::kNoCommit>), all);
}

TEST(Simt, ADivergentBarrierIsNamed) {
  std::vector<int> x(64);
  InAllOrders([&] {
    ExpectError([&] { Launch(DivergentBarrier, 1, 64, 0, x.data()); },
                R"(block \(0,0,0\) thread \d+: __syncthreads \(.*simt_kernels.h:\d+\) meets )"
                R"(__syncthreads \(.*simt_kernels.h:\d+\), where \d+ of 64 threads wait)");
    ExpectError([&] { Launch(EarlyReturn, 1, 64, 0, x.data()); },
                R"(returned while \d+ of 64 threads wait in __syncthreads \(.*simt_kernels.h:\d+|)"
                R"(__syncthreads \(.*simt_kernels.h:\d+\) after \d+ of 64 threads returned)");
  });
  EXPECT_TRUE(SumIsRight());  // whatever the threads of the blocks that failed left behind
}

TEST(Simt, ADeadlockNamesWhoWaits) {
  std::vector<int> x(64);
  InAllOrders([&] {
    ExpectError([&] { Launch(Deadlock, 1, 64, 0, x.data()); },
                R"(block \(0,0,0\) is in deadlock: threads 0-15,32-47 wait in __syncwarp \()"
                R"(.*simt_kernels.h:\d+\); threads 16-31,48-63 wait in __syncthreads \()"
                R"(.*simt_kernels.h:\d+\)\.$)");
  });
}

TEST(Simt, AWriteOutsideSharedMemoryIsSeen) {
  std::vector<int> x(64, 1);
  const auto write = [&](int index) {
    return [&x, index] { Launch(WritePast, 1, 64, 64 * 4, x.data(), index); };
  };
  ExpectError(write(63), "no error");
  if (simt::kAddressesChecked) {
    EXPECT_DEATH(write(64)(), "use-after-poison");
    return;
  }
  ExpectError(write(64),
              R"(wrote byte 256 of dynamic shared memory, which has 256, before __syncthreads )"
              R"(\(.*simt_kernels.h:\d+\))");
  ExpectError(write(100), "wrote byte 400 of dynamic shared memory");
  ExpectError(write(-64), "wrote byte 256 of fixed, which has 256");
}

TEST(Simt, SharedMemoryBeginsAsNan) {
  std::vector<float> x(32);
  Launch(ReadUnwritten, 2, 32, 0, x.data());
  for (const float v : x) EXPECT_TRUE(std::isnan(v));
}

TEST(Simt, AnImpossibleCallIsRefused) {
  std::vector<float> x(64);
  std::vector<int> y(64);
  ExpectError([&] { Launch(PartOfShuffle, 1, 32, 0, y.data()); },
              "__shfl_xor_sync .*: lane 0 reads lane 16, which the mask");
  ExpectError([&] { Launch(MisalignedCopy, 1, 1, 0, x.data()); },
              R"(cp_async .*simt_kernels.h:\d+\): an address that is not aligned)");
  ExpectError([&] { Launch(ReadUnwritten, 1, 1025, 0, x.data()); }, "1025 x 1 x 1 threads");
  ExpectError([&] { Launch(ReadUnwritten, 1, 32, 300 * 1024, x.data()); },
              "307200 bytes of dynamic shared memory");
  ExpectError([] { __syncthreads(); }, "outside a kernel");
}

// Rows so far apart that an element's offset exceeds 32 bits; pages nobody touches cost nothing.
TEST(Simt, OffsetsAreWide) {
  constexpr int64_t kStride = (int64_t{1} << 30) + 8, kC = 16;
  constexpr size_t kBytes = static_cast<size_t>(2 * kStride + kC) * sizeof(bf16);
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  bf16* x = static_cast<bf16*>(memory);
  std::vector<bf16> y(3 * kC);
  for (int64_t i = 0; i < 3 * kC; ++i) x[i / kC * kStride + i % kC] = bf16(static_cast<float>(i));
  RunOnCuda(CopyArgs<bf16>{.x = x,
                           .x_stride = kStride,
                           .y = y.data(),
                           .y_stride = kC,
                           .mode = Grad::kOverwrite,
                           .rows = 3,
                           .C = kC});
  for (int64_t i = 0; i < 3 * kC; ++i)
    EXPECT_EQ(static_cast<float>(y[static_cast<size_t>(i)]), static_cast<float>(i));
  munmap(memory, kBytes);
}

}  // namespace
}  // namespace tessera
