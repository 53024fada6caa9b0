#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/rng.h"
#include "kernels/cuda/device.h"

// sm_90's barriers, tile copies and warpgroup products on the host (kernels/simt/hopper.h): right
// use gives the product in every order of threads, and each misuse is found.

namespace tessera {
namespace {

constexpr int kM = 64, kN = 128, kK = 64;
enum class Flaw {
  kNone,
  kNoInit,
  kTooFewBytes,
  kNoWait,
  kNoFence,
  kNoProductWait,
  kMisaligned,
  kWrongStride
};

// c[64, 128] = a[64, 64] b[128, 64]^T by one warpgroup.
template <Flaw kFlaw>
__global__ void OneTile(TESSERA_GRID_CONSTANT TensorMap a, TESSERA_GRID_CONSTANT TensorMap b,
                        float* c) {
  TESSERA_SHARED(uint64_t[1], full);
  TESSERA_DYNAMIC_SHARED(bf16, memory);
  bf16* const tiles = memory + (kFlaw == Flaw::kMisaligned ? 64 : 0);
  if (threadIdx.x == 0) {
    if (kFlaw != Flaw::kNoInit) mbarrier_init(full, 1);
    fence_mbarrier_init();
    mbarrier_expect(full, (kM + kN) * kK * 2 - (kFlaw == Flaw::kTooFewBytes ? 2 : 0));
    for (int box = 0; box < 3; ++box)
      tma_load(tiles + box * 64 * 64, box == 0 ? a : b, 0, box == 2 ? 64 : 0, 0, full);
  }
  __syncthreads();
  if (kFlaw != Flaw::kNoWait) mbarrier_wait(full, 0);
  float sum[64];
  for (float& s : sum) s = 0;
  constexpr uint64_t kStride = kFlaw == Flaw::kWrongStride ? 512 : 1024;
  const auto descriptor = [](const bf16* p) {
    return uint64_t{SharedAddress(p) >> 4} | uint64_t{1} << 16 | (kStride >> 4) << 32 |
           uint64_t{1} << 62;
  };
  if (kFlaw != Flaw::kNoFence) wgmma_fence(sum);
  for (int k = 0; k < kK; k += 16)
    wgmma_m64n128k16<false, false>(sum, descriptor(tiles + k), descriptor(tiles + 64 * 64 + k));
  wgmma_commit();
  if (kFlaw != Flaw::kNoProductWait) wgmma_wait<0>(sum);
  const int lane = threadIdx.x % 32, row = static_cast<int>(threadIdx.x) / 32 * 16 + lane / 4;
  for (int i = 0; i < 64; ++i)
    c[(row + i / 2 % 2 * 8) * kN + i / 4 * 8 + lane % 4 * 2 + i % 2] = sum[i];
  // Products must not outlive their operands.
  wgmma_wait<0>(sum);
}

class SimtHopper : public ::testing::Test {
 protected:
  static std::vector<bf16> Values(int64_t n, const char* name) {
    std::vector<bf16> v;
    for (int64_t i = 0; i < n; ++i)
      v.push_back(bf16(static_cast<float>(Rng(1, name).Normal(static_cast<uint64_t>(i)))));
    return v;
  }
  // The largest error over the elements; those that are not numbers count as infinite.
  template <Flaw kFlaw>
  double Error(int threads = 128) {
    std::vector<float> c(kM * kN);
    Launch(OneTile<kFlaw>, dim3{1}, dim3{static_cast<unsigned>(threads)}, 2 * (kM + kN) * kK + 256,
           MakeTensorMap(a_.data(), kK, kM, 1, kK, kM * kK, 64),
           MakeTensorMap(b_.data(), kK, kN, 1, kK, kN * kK, 64), c.data());
    double worst = 0;
    for (int i = 0; i < kM; ++i)
      for (int j = 0; j < kN; ++j) {
        double want = 0;
        for (int k = 0; k < kK; ++k)
          want += static_cast<double>(static_cast<float>(a_[static_cast<size_t>(i * kK + k)])) *
                  static_cast<double>(static_cast<float>(b_[static_cast<size_t>(j * kK + k)]));
        const double got = c[static_cast<size_t>(i * kN + j)];
        worst = std::max(worst, std::isnan(got) ? INFINITY : std::fabs(got - want));
      }
    return worst;
  }
  template <Flaw kFlaw>
  std::string Said(int threads = 128) {
    try {
      Error<kFlaw>(threads);
    } catch (const simt::Error& e) {
      return e.what();
    }
    return "nothing";
  }
  const std::vector<bf16> a_ = Values(kM * kK, "a"), b_ = Values(kN * kK, "b");
};

TEST_F(SimtHopper, TilesAndProductsInEveryOrder) {
  for (const simt::Order order :
       {simt::Order::kForward, simt::Order::kReverse, simt::Order::kRandom, simt::Order::kWarps}) {
    simt::SetOrder(order, 9);
    EXPECT_LT(Error<Flaw::kNone>(), 1e-4) << Name(order);
    if (simt::ReportsRaces()) break;
  }
  simt::SetOrder(simt::Order::kForward);
}

TEST_F(SimtHopper, MisuseIsFound) {
  if (simt::ReportsRaces()) GTEST_SKIP() << "ThreadSanitizer would stop at these";
  EXPECT_EQ(Error<Flaw::kNoWait>(), INFINITY);         // the tiles have not arrived
  EXPECT_EQ(Error<Flaw::kNoProductWait>(), INFINITY);  // the sums are not there yet
  EXPECT_GT(Error<Flaw::kWrongStride>(), 1);           // other rows than meant
  const auto expect = [](const std::string& said, const std::string& part) {
    EXPECT_NE(said.find(part), std::string::npos) << said;
  };
  expect(Said<Flaw::kNoInit>(), "mbarrier_expect (");
  expect(Said<Flaw::kNoFence>(), "wgmma (");
  expect(Said<Flaw::kNoFence>(), "its thread had the sums since the last wgmma_fence");
  expect(Said<Flaw::kNoInit>(), "a barrier that is not initialised");
  expect(Said<Flaw::kTooFewBytes>(), "mbarrier_wait (");  // waits for ever
  expect(Said<Flaw::kMisaligned>(), "tma_load (");
  expect(Said<Flaw::kMisaligned>(), "not aligned to 1024 bytes");
  expect(Said<Flaw::kNone>(96), "in a warpgroup of fewer than 128 threads");
}

}  // namespace
}  // namespace tessera
