#include "kernels/device/memory.h"

#include <cstdlib>
#include <cstring>

#include "core/check.h"

namespace tessera {
namespace {

// A recording. One that is left by an exception is ended and forgotten, so that the stream works on
// and that exception is what the caller sees.
class Capture {
 public:
  Capture() { Cuda().BeginCapture(); }
  ~Capture() {
    if (!open_) return;
    try {
      std::unique_ptr<CudaDevice::Graph> forgotten;
      Cuda().EndCapture(&forgotten);
    } catch (const CudaError&) {  // of work that was already known to fail
    }
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  void End(std::unique_ptr<CudaDevice::Graph>* graph) {
    open_ = false;  // whatever comes of it
    Cuda().EndCapture(graph);
  }

 private:
  bool open_ = true;
};

}  // namespace

Arena::Memory DeviceMemory(Device device, int64_t bytes) {
  if (device != Device::kCuda) return Arena::HostMemory(bytes);
  CudaDevice& cuda = Cuda();
  void* const p = cuda.Allocate(CudaDevice::Memory::kDevice, bytes);
  return {p, bytes, [&cuda, p] { cuda.Free(CudaDevice::Memory::kDevice, p); }};
}

Arena::Memory MemoryOf(Device device, const PassMemory& pass) {
  if (device == Device::kCuda) Cuda().ReserveScratch(pass.scratch_bytes);
  return DeviceMemory(device, pass.bytes);
}

void Upload(Device device, void* to, const void* from, int64_t bytes) {
  if (bytes == 0 || device == Device::kMeta) return;
  if (device == Device::kCuda) return Cuda().Upload(to, from, bytes);
  std::memcpy(to, from, static_cast<size_t>(bytes));
}

void Download(Device device, void* to, const void* from, int64_t bytes) {
  if (bytes == 0 || device == Device::kMeta) return;
  if (device == Device::kCuda) return Cuda().Download(to, from, bytes);
  std::memcpy(to, from, static_cast<size_t>(bytes));
}

void Zero(Device device, void* to, int64_t rows, int64_t stride_bytes, int64_t row_bytes) {
  if (rows == 0 || row_bytes == 0 || device == Device::kMeta) return;
  if (device == Device::kCuda) return Cuda().Zero(to, rows, stride_bytes, row_bytes);
  for (int64_t r = 0; r < rows; ++r)
    std::memset(static_cast<char*>(to) + r * stride_bytes, 0, static_cast<size_t>(row_bytes));
}

HostBuffer::HostBuffer(Device device, int64_t bytes)
    : device_(device),
      bytes_(bytes),
      data_(device == Device::kCuda ? Cuda().Allocate(CudaDevice::Memory::kPinned, bytes)
                                    : std::malloc(static_cast<size_t>(bytes))) {
  TESSERA_CHECK(data_ != nullptr, "no memory for a buffer of %ld bytes", bytes);
}

HostBuffer::~HostBuffer() {
  if (device_ == Device::kCuda)
    Cuda().Free(CudaDevice::Memory::kPinned, data_);
  else
    std::free(data_);
}

void HostBuffer::StartUpload(void* to) const {
  if (device_ == Device::kCuda) return Cuda().StartUpload(to, data_, bytes_);
  Upload(device_, to, data_, bytes_);
}
void HostBuffer::StartDownload(const void* from) const {
  if (device_ == Device::kCuda) return Cuda().StartDownload(data_, from, bytes_);
  Download(device_, data_, from, bytes_);
}

void RunAsGraph(Device device, std::unique_ptr<CudaDevice::Graph>* graph,
                const std::function<void()>& work) {
  if (device != Device::kCuda) return work();
  Capture capture;
  work();
  capture.End(graph);
  Cuda().Launch(**graph);
}

int64_t Mark(Device device) { return device == Device::kCuda ? Cuda().Mark() : 0; }
void Wait(Device device, int64_t mark) {
  if (device == Device::kCuda) Cuda().Wait(mark);
}

}  // namespace tessera
