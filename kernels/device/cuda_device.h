#ifndef TESSERA_KERNELS_DEVICE_CUDA_DEVICE_H_
#define TESSERA_KERNELS_DEVICE_CUDA_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>

#include "core/dtype.h"

// A GPU as the host sees it. The program has no CUDA in it: libtessera_cuda.so, built where there
// is an nvcc (kernels/cuda/), implements this class and is loaded when a GPU is asked for. All work
// goes to one stream: it is done in the order of the calls, later than the calls.

namespace tessera {

// A call that the GPU or its driver refused, with the op and its sizes where it was a kernel.
class CudaError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class CudaDevice {
 public:
  virtual ~CudaDevice() = default;

  virtual std::string Name() const = 0;  // NVIDIA H200, sm_90, 139.8 GiB
  virtual int64_t FreeBytes() = 0;
  // FLOP/s of a large product of fp32, or of bf16 with fp32 sums, and bytes/s of a large copy
  // within its memory, read and written.
  virtual double MeasurePeakFlops(DType compute) = 0;
  virtual double MeasureCopyBandwidth() = 0;

  // The kernel of an Args struct, by the name and size of its type; null if there is none.
  using Kernel = void (*)(const void* args);
  virtual Kernel Find(const char* args_type, size_t args_bytes) = 0;

  enum class Memory : uint8_t {
    kDevice,
    kPinned,  // the host's; copies from and to it run behind the host's back
  };
  // 256-byte aligned. Throws CudaError if there is not enough; so do the calls below if work before
  // them failed, but for Free, which waits for all of it.
  virtual void* Allocate(Memory kind, int64_t bytes) = 0;
  virtual void Free(Memory kind, void* p) noexcept = 0;

  // Takes the memory that kernels will use for partial results, so that none is taken in a step.
  virtual void ReserveScratch(int64_t bytes) = 0;

  // Device memory from any of the host's, which may be reused once the call returns.
  virtual void Upload(void* to, const void* from, int64_t bytes) = 0;
  // The other way; waits for all work before it.
  virtual void Download(void* to, const void* from, int64_t bytes) = 0;
  // The same from and to pinned memory, which belongs to the copy until a mark after it has passed.
  virtual void StartUpload(void* to, const void* from, int64_t bytes) = 0;
  virtual void StartDownload(void* to, const void* from, int64_t bytes) = 0;
  virtual void Zero(void* to, int64_t rows, int64_t stride_bytes, int64_t row_bytes) = 0;

  // Marks count up from 1; Wait returns when all work before a mark's making is done.
  virtual int64_t Mark() = 0;
  virtual void Wait(int64_t mark) = 0;

  // Between the two calls work is recorded and not done; addresses and sizes are kept as they were.
  // Nothing may be allocated, copied to or from the host, marked or waited for between them.
  class Graph {
   public:
    virtual ~Graph() = default;
  };
  virtual void BeginCapture() = 0;
  // Into `graph`, in place where it already has a graph of the same kernels.
  virtual void EndCapture(std::unique_ptr<Graph>* graph) = 0;
  virtual void Launch(Graph& graph) = 0;
};

}  // namespace tessera

// What libtessera_cuda.so exports: its device, or null and why there is none. `interface` is the
// caller's TESSERA_CUDA_INTERFACE, a number made of the text of every header that both sides must
// have read alike (kernels/device/interface.cmake).
extern "C" tessera::CudaDevice* TesseraCudaDevice(uint64_t interface, std::string* error);

#endif  // TESSERA_KERNELS_DEVICE_CUDA_DEVICE_H_
