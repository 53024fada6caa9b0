#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/copy.h"
#include "kernels/cuda/device.h"

// The executor itself: kernels that are right give the right result in every order of threads, and
// each kind of mistake is seen.

namespace tessera::simt {
namespace {

constexpr ThreadOrder kOrders[] = {ThreadOrder::kForward, ThreadOrder::kReverse,
                                   ThreadOrder::kRandom};

// The mistake that Launch reports, or "".
template <class... Ps, class... As>
std::string ErrorOf(void (*kernel)(Ps...), Dim3 grid, Dim3 block, size_t shared, As... arguments) {
  try {
    Launch(kernel, grid, block, shared, arguments...);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

class Simt : public ::testing::TestWithParam<ThreadOrder> {
 protected:
  Simt() { SetThreadOrder(GetParam(), 5); }
  ~Simt() override { SetThreadOrder(ThreadOrder::kForward); }
};
std::string OrderName(const ::testing::TestParamInfo<ThreadOrder>& i) {
  constexpr const char* kNames[] = {"forward", "reverse", "random"};
  return kNames[static_cast<int>(i.param)];
}
INSTANTIATE_TEST_SUITE_P(Order, Simt, ::testing::ValuesIn(kOrders), OrderName);

// One block a row: thread t adds elements t, t + 128, ...; warps by shuffles, then the block.
template <bool kBarrier>
__global__ void RowSums(const float* x, float* y, int n) {
  TESSERA_SHARED(float[4], warp_sums);
  float s = 0;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += static_cast<int>(blockDim.x))
    s += x[static_cast<int>(blockIdx.x) * n + i];
  for (int lanes = 16; lanes > 0; lanes /= 2) s += __shfl_xor_sync(~0u, s, lanes);
  if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = s;
  if (kBarrier) __syncthreads();
  // Every thread reads all sums: whoever comes early sees what is not there yet.
  float all = 0;
  for (const float w : warp_sums) all += w;
  if (threadIdx.x == 0 || threadIdx.x == blockDim.x - 1)
    y[2 * blockIdx.x + (threadIdx.x != 0)] = all;
}

TEST_P(Simt, SumsRows) {
  std::vector<float> x(3 * 517), y(6);
  std::iota(x.begin(), x.end(), 0.0f);
  Launch(RowSums<true>, Dim3{3}, Dim3{128}, 0, x.data(), y.data(), 517);
  for (int r = 0; r < 3; ++r) {
    const auto want = static_cast<float>(517 * (517 * r) + 516 * 517 / 2);
    EXPECT_EQ(y[static_cast<size_t>(2 * r)], want);
    EXPECT_EQ(y[static_cast<size_t>(2 * r + 1)], want);
  }
}

TEST_P(Simt, SeesAMissingBarrier) {
  std::vector<float> x(256, 1.0f), y(2);
  Launch(RowSums<false>, Dim3{1}, Dim3{128}, 0, x.data(), y.data(), 256);
  EXPECT_TRUE(std::isnan(y[0]) || std::isnan(y[1])) << y[0] << " " << y[1];
}

// Hillis and Steele's inclusive scan in dynamic shared memory.
template <int kWritePast>
__global__ void Scan(const int* x, int* y, int n) {
  TESSERA_DYNAMIC_SHARED(int, s);
  const int t = static_cast<int>(threadIdx.x);
  s[t] = t < n ? x[t] : 0;
  __syncthreads();
  for (int d = 1; d < static_cast<int>(blockDim.x); d *= 2) {
    const int before = t >= d ? s[t - d] : 0;
    __syncthreads();
    s[t] += before;
    __syncthreads();
  }
  if (t < n) y[t] = s[t];
  if (kWritePast != 0) s[t + kWritePast] = 0;
}

TEST_P(Simt, Scans) {
  std::vector<int> x(100, 2), y(100);
  Launch(Scan<0>, Dim3{1}, Dim3{128}, 128 * sizeof(int), x.data(), y.data(), 100);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(y[static_cast<size_t>(i)], 2 * (i + 1));
}

#if !defined(__SANITIZE_ADDRESS__)  // which ends the program at such a write, with its place
TEST_P(Simt, SeesAWritePastSharedMemory) {
  std::vector<int> x(100, 2), y(100);
  EXPECT_EQ(ErrorOf(Scan<1>, Dim3{1}, Dim3{128}, 128 * sizeof(int), x.data(), y.data(), 100),
            "a write past the end of dynamic shared memory of 512 bytes in block (0,0,0)");
}
#endif

// Counts ids; lanes with the same id elect one of them to add for all.
__global__ void Count(const int* ids, int n, int* counts) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const int id = i < n ? ids[i] : -1;
  const uint32_t same = __match_any_sync(~0u, id);
  if (id >= 0 && static_cast<int>(threadIdx.x % 32) == __ffs(static_cast<int>(same)) - 1)
    atomicAdd(&counts[id], __popc(same));
}

TEST_P(Simt, CountsByMatching) {
  std::vector<int> ids(1000), counts(7), want(7);
  for (size_t i = 0; i < ids.size(); ++i) ++want[static_cast<size_t>(ids[i] = i * i % 7)];
  Launch(Count, Dim3{8}, Dim3{128}, 0, ids.data(), 1000, counts.data());
  EXPECT_EQ(counts, want);
}

// c[16,8] = a[16,16] b[16,8] through shared memory: a by rows, b by rows and read transposed.
template <bool kWait>
__global__ void Multiply(const bf16* a, const bf16* b, float* c) {
  TESSERA_SHARED(bf16[16 * 16 + 16 * 8], tile);
  const int lane = static_cast<int>(threadIdx.x);
  CopyAsync16(tile + lane * 8, a + lane * 8);
  if (lane < 16) CopyAsync16(tile + 256 + lane * 8, b + lane * 8);
  CopyAsyncCommit();
  if (kWait) CopyAsyncWaitFor<0>();
  __syncwarp();
  uint32_t fa[4], fb[4];
  LoadMatrix4(fa, tile + lane % 16 * 16 + lane / 16 * 8);
  LoadMatrix4Transposed(fb, tile + 256 + lane % 16 * 8);
  float d[4] = {};
  MmaBf16(d, fa, fb[0], fb[1]);
  for (int i = 0; i < 4; ++i) c[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = d[i];
}

TEST_P(Simt, MultipliesMatrices) {
  alignas(16) bf16 a[256], b[128];
  for (int i = 0; i < 256; ++i) a[i] = bf16(static_cast<float>(i % 13 - 6));
  for (int i = 0; i < 128; ++i) b[i] = bf16(static_cast<float>(i % 11 - 5));
  std::vector<float> c(128), unready(128);
  Launch(Multiply<true>, Dim3{1}, Dim3{32}, 0, a, b, c.data());
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 8; ++j) {
      float want = 0;
      for (int k = 0; k < 16; ++k)
        want += static_cast<float>(a[i * 16 + k]) * static_cast<float>(b[k * 8 + j]);
      EXPECT_EQ(c[static_cast<size_t>(i * 8 + j)], want) << i << "," << j;
    }
  Launch(Multiply<false>, Dim3{1}, Dim3{32}, 0, a, b, unready.data());
  EXPECT_TRUE(std::isnan(unready[0]));
}

// Rows so far apart that an element's offset exceeds 32 bits; pages nobody touches cost nothing.
TEST_P(Simt, OffsetsAreWide) {
  constexpr int64_t kStride = (int64_t{1} << 30) + 8, kC = 16;
  constexpr size_t kBytes = static_cast<size_t>(2 * kStride + kC) * sizeof(bf16);
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  bf16* x = static_cast<bf16*>(memory);
  std::vector<bf16> y(3 * kC);
  for (int64_t i = 0; i < 3 * kC; ++i) x[i / kC * kStride + i % kC] = bf16(static_cast<float>(i));
  simt::Run(CopyArgs<bf16>{.x = x,
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

__global__ void HalfComes() {
  if (threadIdx.x < 40) __syncthreads();
}
__global__ void HalfAWarpShuffles(int* x) {
  if (threadIdx.x < 16) *x = __shfl_xor_sync(~0u, 1, 1);
  __syncthreads();
}
__global__ void TwoPlaces() {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
}

TEST(SimtErrors, NameThePlace) {
  EXPECT_THAT(ErrorOf(HalfComes, Dim3{1}, Dim3{64}, 0),
              ::testing::AllOf(::testing::HasSubstr("thread 40 of block (0,0,0) returned while 40 "
                                                    "threads wait at __syncthreads ("),
                               ::testing::HasSubstr("simt_test.cc:")));
  int x = 0;
  EXPECT_THAT(ErrorOf(HalfAWarpShuffles, Dim3{1}, Dim3{32}, 0, &x),
              ::testing::AllOf(
                  ::testing::HasSubstr("deadlock in block (0,0,0): 16 threads (first: 0) wait at "
                                       "__shfl_xor_sync ("),
                  ::testing::HasSubstr("; 16 threads (first: 16) wait at __syncthreads (")));
  EXPECT_THAT(ErrorOf(TwoPlaces, Dim3{1}, Dim3{64}, 0),
              ::testing::HasSubstr("divergent threads in block (0,0,0): __syncthreads ("));
  EXPECT_EQ(ErrorOf(HalfComes, Dim3{1}, Dim3{2048}, 0),
            "a launch of 2048 threads a block; 1 to 1024 are possible");
  EXPECT_EQ(ErrorOf(HalfComes, Dim3{1, 70000}, Dim3{32}, 0),
            "a launch of (1,70000,1) blocks; x is limited to 2^31 - 1, y and z to 65535");
  EXPECT_EQ(ErrorOf(HalfComes, Dim3{1}, Dim3{32}, 300000),
            "a launch with 300000 bytes of shared memory; 232448 are possible");
}

}  // namespace
}  // namespace tessera::simt
