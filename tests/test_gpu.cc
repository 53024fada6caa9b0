#include "tests/test_gpu.h"

#include <gtest/gtest.h>

#include <cstdlib>

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

Arena::Memory TouchableMemory(Device device, int64_t bytes) {
  if (device != Device::kCuda || !RealGpu()) return Arena::HostMemory(bytes);
  void* const p = Cuda().Allocate(CudaDevice::Memory::kManaged, bytes);
  return {p, bytes, [p] { Cuda().Free(CudaDevice::Memory::kManaged, p); }};
}

}  // namespace tessera::testing
