#ifndef TESSERA_KERNELS_DEVICE_MEMORY_H_
#define TESSERA_KERNELS_DEVICE_MEMORY_H_

#include <cstdint>
#include <functional>
#include <memory>

#include "core/arena.h"
#include "kernels/dispatch.h"

// Memory of a device, copies between it and the host, and the order of its work. On a GPU copies
// take their turn among its work; on the CPU they are done at once; on the meta device there is
// nothing to copy.

namespace tessera {

// What an arena of tensors on `device` is made of. On a GPU throws CudaError if there is not so
// much.
Arena::Memory DeviceMemory(Device device, int64_t bytes);

// The memory of a pass, before it runs: its tensors, and what a GPU's kernels use between launches.
struct PassMemory {
  int64_t bytes = 0, scratch_bytes = 0;
};
// Takes both; an arena is made of what is returned.
Arena::Memory MemoryOf(Device device, const PassMemory& pass);

// `from` may be reused once the call returns.
void Upload(Device device, void* to, const void* from, int64_t bytes);
// Waits until all work before it is done, and the copy.
void Download(Device device, void* to, const void* from, int64_t bytes);
// Rows of row_bytes, stride_bytes apart.
void Zero(Device device, void* to, int64_t rows, int64_t stride_bytes, int64_t row_bytes);
inline void Zero(Device device, void* to, int64_t bytes) { Zero(device, to, 1, bytes, bytes); }

// Host memory that copies use behind the host's back; its contents are undefined at first.
class HostBuffer {
 public:
  HostBuffer(Device device, int64_t bytes);
  ~HostBuffer();
  HostBuffer(const HostBuffer&) = delete;
  HostBuffer& operator=(const HostBuffer&) = delete;
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  // The whole buffer to or from the device. It belongs to the copy until a Mark made after it has
  // passed.
  void StartUpload(void* to) const;
  void StartDownload(const void* from) const;

 private:
  Device device_;
  int64_t bytes_;
  void* data_;
};

// Does `work`. On a GPU it becomes one graph, in place of `graph`, and is launched as that; what
// CudaDevice::BeginCapture says must hold of it.
void RunAsGraph(Device device, std::unique_ptr<CudaDevice::Graph>* graph,
                const std::function<void()>& work);

// A point in the device's work, and the wait until it is reached.
int64_t Mark(Device device);
void Wait(Device device, int64_t mark);

}  // namespace tessera

#endif  // TESSERA_KERNELS_DEVICE_MEMORY_H_
