#include "tests/device/test_gpu.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "core/check.h"
#include "kernels/simt/launch.h"

namespace tessera::testing {
namespace {

// The GPU that tests find where they choose none.
class TestGpu : public ::testing::Environment {
 public:
  void SetUp() override {
    if (!RealGpu()) return Use();
    // Tests touch tensors between launches, so launches must not run behind their back.
    setenv("CUDA_LAUNCH_BLOCKING", "1", 1);
    const absl::Status open = OpenCuda();
    if (!open.ok()) {
      std::fprintf(stderr, "TESSERA_TEST_GPU is set: %s\n", std::string(open.message()).c_str());
      std::exit(1);
    }
  }
  static void Use() {
    static HostGpu gpu(HostGpu::Mode::kAtOnce);
    UseCudaDevice(&gpu);
  }
};
const auto* const test_gpu = ::testing::AddGlobalTestEnvironment(new TestGpu);

}  // namespace

ScopedHostGpu::ScopedHostGpu(HostGpu::Mode mode, int64_t memory_bytes) : gpu_(mode, memory_bytes) {
  UseCudaDevice(&gpu_);
  if (mode == HostGpu::Mode::kLater) simt::LaunchStream() = &gpu_;
}
ScopedHostGpu::~ScopedHostGpu() {
  simt::LaunchStream() = nullptr;
  TestGpu::Use();
}

bool RealGpu() {
  static const bool real = [] {
    const char* wanted = std::getenv("TESSERA_TEST_GPU");
    return wanted != nullptr && std::string(wanted) == "1";
  }();
  return real;
}

bool HasWgmma() {
  const std::string name = Cuda().Name();
  return name == "the host" || name.find(", sm_9") != std::string::npos;
}

ScopedWgmma::ScopedWgmma(const char* use) {
  if (const char* const before = std::getenv("TESSERA_WGMMA")) before_ = before;
  setenv("TESSERA_WGMMA", use, 1);
}
ScopedWgmma::~ScopedWgmma() {
  if (before_)
    setenv("TESSERA_WGMMA", before_->c_str(), 1);
  else
    unsetenv("TESSERA_WGMMA");
}

Arena::Memory PinnedBlock::Take(int64_t bytes) {
  const int64_t begin = parts_.empty() ? 0 : parts_.back().end,
                end = begin + (bytes + 255) / 256 * 256;
  TESSERA_CHECK(end <= bytes_, "a pinned block of %ld bytes, %ld taken, cannot hold %ld more",
                bytes_, begin, bytes);
  parts_.push_back({begin, end, true});
  return {buffer_.as<char>() + begin, bytes, [this, part = parts_.size() - 1] {
            parts_[part].live = false;
            while (!parts_.empty() && !parts_.back().live) parts_.pop_back();
          }};
}

Arena::Memory TouchableMemory(Device device, int64_t bytes) {
  if (device != Device::kCuda || !RealGpu()) return Arena::HostMemory(bytes);
  constexpr int64_t kMost = int64_t{64} << 20;  // what a test really uses is a few megabytes
  // Never given back: the GPU may be closed before it would be.
  static auto* const block = new PinnedBlock(4 * kMost);
  return block->Take(std::min(bytes, kMost));
}

}  // namespace tessera::testing
