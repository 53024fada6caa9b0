#ifndef TESSERA_KERNELS_DISPATCH_H_
#define TESSERA_KERNELS_DISPATCH_H_

#include <cstdint>

#include "core/check.h"
#include "kernels/cpu/isa.h"

// The one place where a call chooses its kernel. An op is asked for by the type of its arguments:
// the file kernels/x.cc that defines it for the CPU is compiled once for each instruction set, and
// the linker complains of one that is missing.

namespace tessera {

enum class Device : uint8_t {
  kCpu,
  kMeta,  // shapes only: nothing is allocated, nothing runs, everything is counted
};

constexpr const char* Name(Device d) { return d == Device::kCpu ? "cpu" : "meta"; }

template <class Args>
void Dispatch(Device device, const Args& args) {
  if (device == Device::kMeta) return;
  switch (ActiveIsa()) {
    case Isa::kAvx2:
      return avx2::Run<Args>(args);
    case Isa::kAvx512:
      return avx512::Run<Args>(args);
  }
}

}  // namespace tessera

#endif  // TESSERA_KERNELS_DISPATCH_H_
