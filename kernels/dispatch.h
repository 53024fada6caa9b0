#ifndef TESSERA_KERNELS_DISPATCH_H_
#define TESSERA_KERNELS_DISPATCH_H_

#include <cstdint>

#include "core/check.h"
#include "kernels/cpu/isa.h"
#include "kernels/device/cuda.h"

// The one place where a call chooses its kernel. An op is asked for by the type of its arguments:
// the file kernels/x.cc that defines it for the CPU is compiled once for each instruction set, and
// the linker complains of one that is missing; its CUDA kernel kernels/x.cu is looked up in the
// library that was loaded for the GPU.

namespace tessera {

enum class Device : uint8_t {
  kCpu,
  kCuda,  // open before anything is asked of it (kernels/device/cuda.h)
  kMeta,  // shapes only: nothing is allocated, nothing runs, everything is counted
};

constexpr const char* Name(Device d) {
  constexpr const char* kNames[] = {"cpu", "cuda", "meta"};
  return kNames[static_cast<int>(d)];
}

template <class Args>
void RunOnCpu(const Args& args) {
  switch (ActiveIsa()) {
    case Isa::kAvx2:
      return avx2::Run<Args>(args);
    case Isa::kAvx512:
      return avx512::Run<Args>(args);
  }
}

template <class Args>
void Dispatch(Device device, const Args& args) {
  switch (device) {
    case Device::kCpu:
      return RunOnCpu(args);
    case Device::kCuda:
      return RunOnCuda(args);
    case Device::kMeta:
      return;
  }
}

}  // namespace tessera

#endif  // TESSERA_KERNELS_DISPATCH_H_
