#ifndef TESSERA_KERNELS_DEVICE_WGMMA_H_
#define TESSERA_KERNELS_DEVICE_WGMMA_H_

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "kernels/device/cuda_device.h"

namespace tessera {

// Which of the two kernels of a grouped product a GPU launches: TESSERA_WGMMA in the environment.
enum class WgmmaUse : uint8_t {
  kAuto,    // by its sizes (kernels/product/grouped_matmul.h); so where nothing is said
  kAlways,  // that by sm_90's warpgroup instructions, at any size
  kNever,
};

// Throws CudaError where it says something else. Read anew each time, so that tests can choose.
inline WgmmaUse WgmmaUseOfEnvironment() {
  const char* const wanted = std::getenv("TESSERA_WGMMA");
  const std::string_view use = wanted == nullptr ? "auto" : wanted;
  if (use == "auto") return WgmmaUse::kAuto;
  if (use == "always") return WgmmaUse::kAlways;
  if (use == "never") return WgmmaUse::kNever;
  throw CudaError("TESSERA_WGMMA is '" + std::string(use) +
                  "' in the environment; it can be auto, always or never");
}

}  // namespace tessera

#endif  // TESSERA_KERNELS_DEVICE_WGMMA_H_
