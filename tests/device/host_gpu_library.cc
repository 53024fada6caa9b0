#include "kernels/device/wgmma.h"
#include "kernels/simt/launch.h"
#include "tests/device/host_gpu.h"

// The GPU on the host in the place of libtessera_cuda.so, so that tests run the whole program on
// it: TESSERA_CUDA_LIBRARY=build/libtessera_host_gpu.so tessera train ... --device cuda

tessera::CudaDevice* TesseraCudaDevice(uint64_t interface, std::string* error) {
  using tessera::testing::HostGpu;
  if (interface != TESSERA_CUDA_INTERFACE) {
    *error = "of another build";
    return nullptr;
  }
  try {
    tessera::WgmmaUseOfEnvironment();
  } catch (const tessera::CudaError& e) {
    *error = e.what();
    return nullptr;
  }
  // Never destroyed: the program's own objects may outlive what this library has.
  static HostGpu* const gpu = new HostGpu(HostGpu::Mode::kLater);
  tessera::simt::LaunchStream() = gpu;
  return gpu;
}
