#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include "kernels/cuda/vector.h"
#include "kernels/product/grouped_matmul.h"
#include "ops/context.h"
#include "tests/device/test_gpu.h"

// The device under a run: recordings that fail, scratch memory, the choice between kernels, and
// what the executor and the tests themselves add.

namespace tessera::testing {
namespace {

// A kernel that fails is told of, with its op and sizes, as soon as anything is waited for; one
// that fails while a graph is recorded ends the recording, and the GPU goes on.
TEST(GpuDevice, ErrorsNameTheOpAndItsSizesAndEndRecordings) {
  for (const HostGpu::Mode mode : {HostGpu::Mode::kAtOnce, HostGpu::Mode::kLater}) {
    ScopedHostGpu gpu(mode);
    Arena arena(DeviceMemory(Device::kCuda, 1 << 20));
    Context ctx(Device::kCuda, &arena);
    const Tensor ones = ctx.New({5, 7}, DType::kF32), sums = ctx.New({7}, DType::kF32);
    const std::vector<float> values(35, 1);
    std::vector<float> got(7);
    Upload(Device::kCuda, ones.raw(), values.data(), ones.bytes());
    const auto sum = [&] {
      ctx.Run(ColumnSumArgs<float>{
          .x = ones.data<float>(), .x_stride = 7, .y = sums.data<float>(), .rows = 5, .C = 7});
    };
    std::unique_ptr<CudaDevice::Graph> graph;
    const std::string want = mode == HostGpu::Mode::kLater
                                 // Takes scratch memory, which a graph cannot.
                                 ? "column_sum rows=5 C=7: taking scratch memory while a graph is "
                                   "recorded"
                                 : "a fault of the test";
    try {
      RunAsGraph(Device::kCuda, &graph, [&] {
        sum();
        throw CudaError("a fault of the test");
      });
      ADD_FAILURE() << "nothing was thrown";
    } catch (const CudaError& e) {
      EXPECT_EQ(e.what(), want);
    }
    EXPECT_EQ(graph, nullptr);
    EXPECT_NO_THROW(Wait(Device::kCuda, Mark(Device::kCuda)));
    sum();  // by itself, then as a graph
    RunAsGraph(Device::kCuda, &graph, sum);
    Download(Device::kCuda, got.data(), sums.raw(), sums.bytes());
    EXPECT_EQ(got, std::vector<float>(7, 5));
  }
}

// A kernel's scratch memory stays its own while it calls another that takes some too.
TEST(GpuDevice, ScratchMemoryNests) {
  for (const bool later : {false, true}) {
    std::optional<ScopedHostGpu> gpu;
    if (later) gpu.emplace(HostGpu::Mode::kLater);
    const Scratch first(100);
    const auto fill = [&](float* p, int64_t n, float value) {
      const auto work = [=] { std::fill_n(p, n, value); };
      later ? (*gpu)->Enqueue(work) : work();
    };
    const auto all = [&](const float* p, int64_t n, float value) {
      std::vector<float> v(static_cast<size_t>(n));
      later ? Download(Device::kCuda, v.data(), p, 4 * n)
            : static_cast<void>(std::copy_n(p, n, v.begin()));
      return std::count(v.begin(), v.end(), value) == n;
    };
    fill(first.floats(), 100, 1);
    {
      const Scratch second(50), third(100000);  // the last makes it grow
      fill(second.floats(), 50, 2);
      fill(third.floats(), 100000, 3);
      EXPECT_TRUE(all(first.floats(), 100, 1) && all(second.floats(), 50, 2) &&
                  all(third.floats(), 100000, 3));
    }
    const Scratch again(50);
    fill(again.floats(), 50, 4);
    EXPECT_TRUE(all(first.floats(), 100, 1));
  }
}

TEST(GpuDevice, TheEnvironmentChoosesTheGroupedProduct) {
  EXPECT_TRUE(UsesWgmma(true));
  EXPECT_FALSE(UsesWgmma(false));
  for (const bool preferred : {false, true}) {
    const ScopedWgmma automatic("auto");
    EXPECT_EQ(UsesWgmma(preferred), preferred);
    const ScopedWgmma always("always");
    EXPECT_TRUE(UsesWgmma(preferred));
    const ScopedWgmma never("never");
    EXPECT_FALSE(UsesWgmma(preferred));
  }
  for (const char* wrong : {"Always", "1", "", "always ", "alway"}) {
    const ScopedWgmma chosen(wrong);
    try {
      UsesWgmma(true);
      ADD_FAILURE() << wrong;
    } catch (const CudaError& e) {
      EXPECT_EQ(std::string(e.what()), std::string("TESSERA_WGMMA is '") + wrong +
                                           "' in the environment; it can be auto, always or never");
    }
  }
}

template <int kFrom>
__global__ void FourAtOnce(float* data) {
  float v[4];
  simt_device::Load(data, v);
  simt_device::Store(data + kFrom, v);
}

// What a GPU would fault on.
TEST(GpuDevice, AccessesOfSeveralElementsAreAligned) {
  alignas(16) float data[8] = {};
  EXPECT_NO_THROW(Launch(FourAtOnce<4>, dim3{1}, dim3{1}, 0, data));
  try {
    Launch(FourAtOnce<1>, dim3{1}, dim3{1}, 0, data);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const simt::Error& e) {
    EXPECT_NE(std::string(e.what()).find("an access of 16 bytes at once"), std::string::npos)
        << e.what();
  }
}

// By rows an expert: a few rows of each of many experts are no reason to round all weights.
TEST(GpuDevice, GroupedProductsAreChosenByRowsAnExpert) {
  const auto prefers = [](int64_t rows, int64_t E, DType weights) {
    return GroupedMatmulArgs{.b = {.dtype = weights, .stride = 64, .order = Order::kTransposed},
                             .rows = rows,
                             .E = E,
                             .N = 64,
                             .K = 64}
        .prefers_wgmma();
  };
  EXPECT_TRUE(prefers(512, 2, DType::kF32));
  EXPECT_FALSE(prefers(512, 64, DType::kF32));
  EXPECT_FALSE(prefers(512, 64, DType::kBF16));
  EXPECT_FALSE(prefers(8192, 64, DType::kF32));
  EXPECT_TRUE(prefers(8192, 64, DType::kBF16));
  EXPECT_TRUE(prefers(32768, 64, DType::kF32));
}

// What tests on a real GPU share: one allocation, parts that do not meet, and room for the next
// test while an older part lives on.
TEST(GpuDevice, TestsShareOnePinnedBlock) {
  ScopedHostGpu gpu(HostGpu::Mode::kLater);
  PinnedBlock block(1 << 20);
  const int64_t allocations = gpu->counts().allocations;
  Arena longest(block.Take(1000));
  const Tensor x(&longest, {100}, DType::kF32);
  const char* second = nullptr;
  for (int round = 0; round < 9; ++round) {
    std::optional<Arena> a(block.Take(1 << 18)), b(block.Take(1 << 19));
    const Tensor y(&*a, {100}, DType::kF32), z(&*b, {100}, DType::kF32);
    EXPECT_GE(y.raw() - x.raw(), 1000);
    EXPECT_GE(z.raw() - y.raw(), 1 << 18);
    if (round == 0) second = y.raw();
    EXPECT_EQ(y.raw(), second);
  }
  EXPECT_EQ(gpu->counts().allocations, allocations);
}

}  // namespace
}  // namespace tessera::testing
