#ifndef TESSERA_TESTS_DEVICE_HOST_GPU_H_
#define TESSERA_TESTS_DEVICE_HOST_GPU_H_

#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels/device/cuda_device.h"
#include "kernels/device/scratch_stack.h"
#include "kernels/simt/launch.h"

// A GPU for tests where there is none: the CUDA kernels compiled for the host, behind the interface
// of the real one.

namespace tessera::testing {

class HostGpu final : public CudaDevice, public simt::Stream {
 public:
  enum class Mode : uint8_t {
    kAtOnce,  // work is done as it is asked for, in memory that the host may touch
    // As a GPU does it: nothing before it is waited for, graphs with what was recorded, and memory
    // that only work and copies reach: a host that touches it dies.
    kLater,
  };
  explicit HostGpu(Mode mode, int64_t memory_bytes = int64_t{1} << 40);
  ~HostGpu() override;

  std::string Name() const override { return "the host"; }
  int64_t FreeBytes() override { return memory_bytes_; }
  double MeasurePeakFlops(DType) override { return 1e12; }
  double MeasureCopyBandwidth() override { return 1e11; }
  Kernel Find(const char* args_type, size_t args_bytes) override;
  void* Allocate(Memory kind, int64_t bytes) override;
  void Free(Memory kind, void* p) noexcept override;
  void ReserveScratch(int64_t bytes) override {
    const int64_t count = (bytes + 3) / 4;
    GiveScratchBack(TakeScratch(count), count);
  }
  void Upload(void* to, const void* from, int64_t bytes) override;
  void Download(void* to, const void* from, int64_t bytes) override;
  void StartUpload(void* to, const void* from, int64_t bytes) override;
  void StartDownload(void* to, const void* from, int64_t bytes) override;
  void Zero(void* to, int64_t rows, int64_t stride_bytes, int64_t row_bytes) override;
  int64_t Mark() override;
  void Wait(int64_t mark) override;
  void BeginCapture() override;
  void EndCapture(std::unique_ptr<Graph>* graph) override;
  void Launch(Graph& graph) override;

  void Enqueue(std::function<void()> launch) override;
  float* TakeScratch(int64_t count) override;
  void GiveScratchBack(float* floats, int64_t count) override;

  // What was asked for so far.
  struct Counts {
    int64_t allocations = 0, waits = 0, captures = 0, launches = 0, graph_launches = 0;
  };
  const Counts& counts() const { return counts_; }

 private:
  using Work = std::function<void()>;
  struct Recorded;
  void Refuse(const char* what) const;
  void Do(Work work);
  void RunUntil(int64_t mark);
  void Protect(int access);

  Mode mode_;
  int64_t memory_bytes_;
  bool blocking_;                           // CUDA_LAUNCH_BLOCKING=1
  std::map<void*, int64_t> device_memory_;  // bytes mapped
  std::deque<Work> queue_;
  std::exception_ptr failure_;
  std::unique_ptr<std::vector<Work>> capture_;
  int64_t marks_ = 0, passed_ = 0;
  ScratchStack scratch_;
  Counts counts_;
};

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_DEVICE_HOST_GPU_H_
