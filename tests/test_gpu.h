#ifndef TESSERA_TESTS_TEST_GPU_H_
#define TESSERA_TESTS_TEST_GPU_H_

#include "core/arena.h"
#include "kernels/device/memory.h"
#include "tests/host_gpu.h"

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
// For tensors that tests write and read themselves.
Arena::Memory TouchableMemory(Device device, int64_t bytes);

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_TEST_GPU_H_
