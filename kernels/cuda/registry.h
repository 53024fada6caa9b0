#ifndef TESSERA_KERNELS_CUDA_REGISTRY_H_
#define TESSERA_KERNELS_CUDA_REGISTRY_H_

#include <cstring>
#include <typeinfo>

#include "kernels/device/cuda_device.h"

// The kernels that were compiled together (for the GPU, or for the host), by the type of their
// arguments: what CudaDevice::Find looks into. Each kernels/x.cu adds its own.

namespace tessera::TESSERA_DEVICE {

template <class Args, void (*kFunction)(const Args&)>
struct KernelOf {};

class KernelEntry {
 public:
  template <class Args, void (*kFunction)(const Args&)>
  explicit KernelEntry(KernelOf<Args, kFunction>)
      : args_(typeid(Args).name()),
        bytes_(sizeof(Args)),
        kernel_([](const void* args) { kFunction(*static_cast<const Args*>(args)); }),
        next_(First()) {
    First() = this;
  }
  static CudaDevice::Kernel Find(const char* args, size_t bytes) {
    for (const KernelEntry* e = First(); e != nullptr; e = e->next_)
      if (std::strcmp(e->args_, args) == 0 && e->bytes_ == bytes) return e->kernel_;
    return nullptr;
  }

 private:
  static const KernelEntry*& First() {
    static const KernelEntry* first = nullptr;
    return first;
  }
  const char* args_;
  size_t bytes_;
  CudaDevice::Kernel kernel_;
  const KernelEntry* next_;
};

}  // namespace tessera::TESSERA_DEVICE

#define TESSERA_KERNEL_NAME_(number) kernel_entry_##number
#define TESSERA_KERNEL_NAME(number) TESSERA_KERNEL_NAME_(number)

#endif  // TESSERA_KERNELS_CUDA_REGISTRY_H_
