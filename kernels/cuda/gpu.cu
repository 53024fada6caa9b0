#include <algorithm>
#include <cstdio>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/cuda/runtime.h"
#include "kernels/device/cuda_device.h"
#include "kernels/matmul.h"

// NVIDIA's GPUs behind the interface of kernels/device/cuda_device.h: one device (the first that
// CUDA_VISIBLE_DEVICES leaves), one stream.

namespace tessera::cuda {
namespace {

std::string Version(int v) {
  return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10);
}

struct NvidiaGraph : CudaDevice::Graph {
  explicit NvidiaGraph(cudaGraphExec_t e) : exec(e) {}
  ~NvidiaGraph() override { cudaGraphExecDestroy(exec); }
  cudaGraphExec_t exec;
};

class NvidiaGpu final : public CudaDevice {
 public:
  explicit NvidiaGpu(const cudaDeviceProp& properties) : properties_(properties) {
    for (cudaEvent_t& e : events_)
      Check(cudaEventCreateWithFlags(&e, cudaEventDisableTiming), "an event");
    OpenLibrary();
  }

  std::string Name() const override {
    char text[320];
    std::snprintf(text, sizeof text, "%s, sm_%d%d, %.1f GiB", properties_.name, properties_.major,
                  properties_.minor, static_cast<double>(properties_.totalGlobalMem) * 0x1p-30);
    return text;
  }

  int64_t FreeBytes() override {
    size_t free = 0, total = 0;
    Check(cudaMemGetInfo(&free, &total), "the size of its memory");
    return static_cast<int64_t>(free);
  }

  double MeasurePeakFlops(DType compute) override {
    constexpr int64_t kSize = 4096;
    const int64_t bytes = kSize * kSize * SizeOf(compute);
    char* const memory = static_cast<char*>(Allocate(Memory::kDevice, 3 * bytes));
    Zero(memory, 1, 3 * bytes, 3 * bytes);
    const MatmulArgs product = {
        .a = {.data = memory, .dtype = compute, .stride = kSize},
        .b = {.data = memory + bytes, .dtype = compute, .stride = kSize},
        .c = {.data = memory + 2 * bytes, .dtype = compute, .stride = kSize},
        .M = kSize,
        .N = kSize,
        .K = kSize,
        .precision = compute == DType::kBF16 ? Precision::kBF16 : Precision::kF32};
    const double seconds = BestSeconds([&] {
      if (!LibraryProduct(product))
        throw CudaError("cuBLASLt has no product of 4096 x 4096 x 4096");
    });
    Free(Memory::kDevice, memory);
    return static_cast<double>(product.cost().flops) / seconds;
  }

  double MeasureCopyBandwidth() override {
    const int64_t bytes = std::min<int64_t>(int64_t{1} << 30, FreeBytes() / 4);
    char* const memory = static_cast<char*>(Allocate(Memory::kDevice, 2 * bytes));
    const double seconds = BestSeconds([&] {
      Check(cudaMemcpyAsync(memory + bytes, memory, static_cast<size_t>(bytes),
                            cudaMemcpyDeviceToDevice, Stream()),
            "a copy within the GPU");
    });
    Free(Memory::kDevice, memory);
    return 2 * static_cast<double>(bytes) / seconds;
  }

  Kernel Find(const char* args_type, size_t args_bytes) override {
    return KernelEntry::Find(args_type, args_bytes);
  }

  void* Allocate(Memory kind, int64_t bytes) override {
    void* p = nullptr;
    const auto size = static_cast<size_t>(std::max<int64_t>(bytes, 1));
    const std::string what = std::to_string(bytes) + " bytes of its memory, of which " +
                             std::to_string(FreeBytes()) + " are free";
    switch (kind) {
      case Memory::kDevice:
        Check(cudaMalloc(&p, size), what);
        break;
      case Memory::kPinned:
        Check(cudaMallocHost(&p, size), std::to_string(bytes) + " bytes of pinned memory");
        break;
      case Memory::kManaged:
        Check(cudaMallocManaged(&p, size), what);
        break;
    }
    return p;
  }
  void Free(Memory kind, void* p) noexcept override {
    cudaStreamSynchronize(Stream());
    if (kind == Memory::kPinned)
      cudaFreeHost(p);
    else
      cudaFree(p);
  }

  void ReserveScratch(int64_t bytes) override { ScratchFloats((bytes + 3) / 4); }

  // The driver takes memory that is not pinned into a buffer of its own before it returns.
  void Upload(void* to, const void* from, int64_t bytes) override { StartUpload(to, from, bytes); }
  void Download(void* to, const void* from, int64_t bytes) override {
    StartDownload(to, from, bytes);
    Check(cudaStreamSynchronize(Stream()), "work before a copy to the host");
  }
  void StartUpload(void* to, const void* from, int64_t bytes) override {
    Check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, Stream()),
          "a copy to the GPU");
  }
  void StartDownload(void* to, const void* from, int64_t bytes) override {
    Check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, Stream()),
          "a copy to the host");
  }
  void Zero(void* to, int64_t rows, int64_t stride_bytes, int64_t row_bytes) override {
    // Whole arrays may be longer than the widest row of a two-dimensional fill.
    const cudaError_t result =
        rows == 1 || stride_bytes == row_bytes
            ? cudaMemsetAsync(to, 0, static_cast<size_t>(rows * row_bytes), Stream())
            : cudaMemset2DAsync(to, static_cast<size_t>(stride_bytes), 0,
                                static_cast<size_t>(row_bytes), static_cast<size_t>(rows),
                                Stream());
    Check(result, "zeros");
  }

  int64_t Mark() override {
    ++marks_;
    Check(cudaEventRecord(events_[marks_ % kEvents], Stream()), "an event");
    return marks_;
  }
  // An event that was used again since stands for later work still.
  void Wait(int64_t mark) override {
    Check(cudaEventSynchronize(events_[mark % kEvents]),
          "a kernel (with CUDA_LAUNCH_BLOCKING=1 in the environment the next message names it)");
  }

  void BeginCapture() override {
    Check(cudaStreamBeginCapture(Stream(), cudaStreamCaptureModeThreadLocal), "recording a graph");
  }
  void EndCapture(std::unique_ptr<Graph>* graph) override {
    cudaGraph_t recorded = nullptr;
    Check(cudaStreamEndCapture(Stream(), &recorded), "recording a graph");
    if (*graph != nullptr) {
      cudaGraphExecUpdateResultInfo info;
      const cudaError_t updated =
          cudaGraphExecUpdate(static_cast<NvidiaGraph&>(**graph).exec, recorded, &info);
      if (updated != cudaSuccess) {
        cudaGetLastError();  // other kernels than before: a graph of its own
        graph->reset();
      }
    }
    if (*graph == nullptr) {
      cudaGraphExec_t exec = nullptr;
      Check(cudaGraphInstantiate(&exec, recorded, 0), "making a graph");
      *graph = std::make_unique<NvidiaGraph>(exec);
    }
    Check(cudaGraphDestroy(recorded), "giving a graph back");
  }
  void Launch(Graph& graph) override {
    Check(cudaGraphLaunch(static_cast<NvidiaGraph&>(graph).exec, Stream()), "launching a graph");
  }

 private:
  // The best of several runs, so that clocks have time to rise.
  template <class Work>
  static double BestSeconds(Work&& work) {
    cudaEvent_t begin, end;
    Check(cudaEventCreate(&begin), "an event");
    Check(cudaEventCreate(&end), "an event");
    float best = 0;
    for (int i = 0; i < 12; ++i) {
      Check(cudaEventRecord(begin, Stream()), "an event");
      work();
      Check(cudaEventRecord(end, Stream()), "an event");
      Check(cudaEventSynchronize(end), "a measurement of the GPU");
      float ms = 0;
      Check(cudaEventElapsedTime(&ms, begin, end), "an event");
      best = best == 0 ? ms : std::min(best, ms);
    }
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    return 1e-3 * static_cast<double>(best);
  }

  static constexpr int kEvents = 64;
  cudaDeviceProp properties_;
  cudaEvent_t events_[kEvents];
  int64_t marks_ = 0;
};

// The device, or why there is none.
CudaDevice* Open(int interface, std::string* error) {
  if (interface != kCudaInterface) {
    *error = "libtessera_cuda.so is of another build than the program; build both again";
    return nullptr;
  }
  int driver = 0, count = 0;
  cudaDriverGetVersion(&driver);
  if (driver == 0) {
    *error = "there is no NVIDIA driver on this machine, or it does not run";
    return nullptr;
  }
  const cudaError_t counted = cudaGetDeviceCount(&count);
  if (counted == cudaErrorInsufficientDriver) {
    *error = "the NVIDIA driver knows CUDA " + Version(driver) +
             " and these kernels were built by " + Version(CUDART_VERSION) +
             ": install a newer driver, or build with an older toolkit";
    return nullptr;
  }
  if (counted != cudaSuccess || count == 0) {
    *error = "the NVIDIA driver finds no GPU (" + std::string(cudaGetErrorString(counted)) +
             "; CUDA_VISIBLE_DEVICES leaves out some, if it is set)";
    return nullptr;
  }
  cudaDeviceProp properties;
  const cudaError_t found = cudaGetDeviceProperties(&properties, 0);
  if (found != cudaSuccess) {
    *error = "the GPU does not answer: " + std::string(cudaGetErrorString(found));
    return nullptr;
  }
  if (properties.major < 8) {
    *error = std::string(properties.name) + " is sm_" + std::to_string(properties.major) +
             std::to_string(properties.minor) + "; the kernels need sm_80 (Ampere) or later";
    return nullptr;
  }
  constexpr size_t kSharedBytes = 163 * 1024;
  if (properties.sharedMemPerBlockOptin < kSharedBytes) {
    *error = std::string(properties.name) + " has " +
             std::to_string(properties.sharedMemPerBlockOptin / 1024) +
             " KiB of shared memory for a block; the kernels need 163 (A100, H100, H200, B200)";
    return nullptr;
  }
  static NvidiaGpu gpu(properties);
  return &gpu;
}

}  // namespace
}  // namespace tessera::cuda

tessera::CudaDevice* TesseraCudaDevice(int interface, std::string* error) {
  try {
    return tessera::cuda::Open(interface, error);
  } catch (const tessera::CudaError& e) {
    *error = std::string("the GPU cannot be used: ") + e.what();
    return nullptr;
  }
}
