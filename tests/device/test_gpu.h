#ifndef TESSERA_TESTS_DEVICE_TEST_GPU_H_
#define TESSERA_TESTS_DEVICE_TEST_GPU_H_

#include <optional>
#include <string>
#include <vector>

#include "core/arena.h"
#include "kernels/device/memory.h"
#include "tests/device/host_gpu.h"

// The GPU of the tests: one on the host that does its work at once (Device::kCuda finds it open),
// or the machine's own where TESSERA_TEST_GPU=1 (bench/gpu_check).

namespace tessera::testing {

// Puts a GPU in the place of the tests' own for the life of the object.
class ScopedHostGpu {
 public:
  explicit ScopedHostGpu(HostGpu::Mode mode, int64_t memory_bytes = int64_t{1} << 40);
  ~ScopedHostGpu();
  HostGpu& operator*() { return gpu_; }
  HostGpu* operator->() { return &gpu_; }

 private:
  HostGpu gpu_;
};

// Whether it is a real one.
bool RealGpu();

// Whether the open GPU has sm_90's warpgroup instructions; the host's has.
bool HasWgmma();
// TESSERA_WGMMA for the life of the object.
class ScopedWgmma {
 public:
  explicit ScopedWgmma(const char* use);
  ~ScopedWgmma();
  ScopedWgmma(const ScopedWgmma&) = delete;
  ScopedWgmma& operator=(const ScopedWgmma&) = delete;

 private:
  std::optional<std::string> before_;
};

// One block of the host's memory that a GPU's kernels read and write where it lies, handed out in
// parts, the last of which are handed out again once they are back. A thousand cases take it once.
class PinnedBlock {
 public:
  explicit PinnedBlock(int64_t bytes) : buffer_(Device::kCuda, bytes), bytes_(bytes) {}
  Arena::Memory Take(int64_t bytes);

 private:
  struct Part {
    int64_t begin, end;
    bool live;
  };
  HostBuffer buffer_;
  int64_t bytes_;
  std::vector<Part> parts_;
};

// For tensors that tests write and read themselves: as much as is asked for on the host, and some
// megabytes of a block that is taken once on a real GPU.
Arena::Memory TouchableMemory(Device device, int64_t bytes);

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_DEVICE_TEST_GPU_H_
