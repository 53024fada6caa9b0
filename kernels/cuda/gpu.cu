#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "kernels/cuda/device.h"
#include "kernels/cuda/runtime.h"
#include "kernels/device/wgmma.h"
#include "kernels/product/matmul.h"

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

// In [-1, 1), by a hash of the index.
template <class T>
__global__ void RandomNumbers(T* to, int64_t count) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
    uint64_t x = (static_cast<uint64_t>(i) + 1) * 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 29) * 0xbf58476d1ce4e5b9u;
    to[i] = FromFloat<T>(static_cast<float>(static_cast<int32_t>(x >> 32)) * 0x1p-31f);
  }
}

class NvidiaGpu final : public CudaDevice {
 public:
  explicit NvidiaGpu(const cudaDeviceProp& properties) : properties_(properties) {
    for (cudaEvent_t& e : events_)
      Check(cudaEventCreateWithFlags(&e, cudaEventDisableTiming), "an event");
    const char* const blocking = std::getenv("CUDA_LAUNCH_BLOCKING");
    blocking_ = blocking != nullptr && std::strcmp(blocking, "1") == 0;
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
    double& peak = compute == DType::kBF16 ? bf16_flops_ : fp32_flops_;
    if (peak > 0) return peak;
    const int64_t size_of = SizeOf(compute);
    int64_t size = 8192;  // halved where most of the memory is taken
    while (size > 1024 && 3 * size * size * size_of > FreeBytes() / 2) size /= 2;
    const int64_t bytes = size * size * size_of;
    const Numbers memory(this, 3 * bytes, compute);
    const MatmulArgs product = {
        .a = {.data = memory.p, .dtype = compute, .stride = size},
        .b = {.data = memory.p + bytes, .dtype = compute, .stride = size},
        .c = {.data = memory.p + 2 * bytes, .dtype = compute, .stride = size},
        .M = size,
        .N = size,
        .K = size,
        .precision = compute == DType::kBF16 ? Precision::kBF16 : Precision::kF32};
    const double seconds = WarmSeconds([&] {
      if (!LibraryProduct(product))
        throw CudaError("cuBLASLt has no product of " + std::to_string(size) + " cubed");
    });
    return peak = static_cast<double>(product.cost().flops) / seconds;
  }

  double MeasureCopyBandwidth() override {
    if (copy_bandwidth_ > 0) return copy_bandwidth_;
    const int64_t bytes = std::min<int64_t>(int64_t{1} << 30, FreeBytes() / 4) / 256 * 256;
    const Numbers memory(this, 2 * bytes, DType::kF32);
    const double seconds = WarmSeconds([&] {
      Check(cudaMemcpyAsync(memory.p + bytes, memory.p, static_cast<size_t>(bytes),
                            cudaMemcpyDeviceToDevice, Stream()),
            "a copy within the GPU");
    });
    return copy_bandwidth_ = 2 * static_cast<double>(bytes) / seconds;
  }

  Kernel Find(const char* args_type, size_t args_bytes) override {
    return KernelEntry::Find(args_type, args_bytes);
  }

  void* Allocate(Memory kind, int64_t bytes) override {
    void* p = nullptr;
    const auto size = static_cast<size_t>(std::max<int64_t>(bytes, 1));
    const std::string what = std::to_string(bytes) + " bytes of its memory, of which " +
                             std::to_string(FreeBytes()) + " are free";
    if (kind == Memory::kPinned)
      Check(cudaHostAlloc(&p, size, cudaHostAllocMapped),
            std::to_string(bytes) + " bytes of pinned memory");
    else
      Check(cudaMalloc(&p, size), what);
    return p;
  }
  void Free(Memory kind, void* p) noexcept override {
    cudaStreamSynchronize(Stream());
    if (kind == Memory::kPinned)
      cudaFreeHost(p);
    else
      cudaFree(p);
  }

  void ReserveScratch(int64_t bytes) override { Scratch((bytes + 3) / 4); }

  void Upload(void* to, const void* from, int64_t bytes) override {
    StartUpload(to, from, bytes);
    Check(cudaStreamSynchronize(Stream()), "a copy to the GPU, or work before it");
  }
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
    Settle();
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
    const std::unique_ptr<CUgraph_st, cudaError_t (*)(cudaGraph_t)> owner(recorded,
                                                                          cudaGraphDestroy);
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
  }
  void Launch(Graph& graph) override {
    Check(cudaGraphLaunch(static_cast<NvidiaGraph&>(graph).exec, Stream()), "launching a graph");
    Settle();
  }

 private:
  // Random numbers in memory of their own: a card multiplies zeros faster than anything else.
  struct Numbers {
    Numbers(NvidiaGpu* gpu, int64_t bytes, DType type)
        : gpu(gpu), p(static_cast<char*>(gpu->Allocate(Memory::kDevice, bytes))) {
      const int64_t count = bytes / SizeOf(type);
      const dim3 grid{1024}, block{256};
      if (type == DType::kBF16)
        tessera::Launch(RandomNumbers<bf16>, grid, block, 0, reinterpret_cast<bf16*>(p), count);
      else
        tessera::Launch(RandomNumbers<float>, grid, block, 0, reinterpret_cast<float*>(p), count);
    }
    ~Numbers() { gpu->Free(Memory::kDevice, p); }
    Numbers(const Numbers&) = delete;
    Numbers& operator=(const Numbers&) = delete;
    NvidiaGpu* gpu;
    char* p;
  };

  // Of one run: the median of several rounds on a card whose clocks have had time to rise.
  template <class Work>
  double WarmSeconds(Work&& work) {
    using Clock = std::chrono::steady_clock;
    const auto seconds = [&](int runs) {
      const auto start = Clock::now();
      for (int i = 0; i < runs; ++i) work();
      Check(cudaStreamSynchronize(Stream()), "a measurement of the GPU");
      return std::chrono::duration<double>(Clock::now() - start).count();
    };
    constexpr double kWarm = 0.25, kRound = 0.03;
    seconds(1);
    const int some = std::clamp(static_cast<int>(kRound / seconds(1)), 1, 1000);
    for (double warm = 0; warm < kWarm;) warm += seconds(some);
    const int runs = std::clamp(static_cast<int>(kRound / (seconds(some) / some)), 1, 1000);
    std::array<double, 7> rounds;
    for (double& r : rounds) r = seconds(runs) / runs;
    std::sort(rounds.begin(), rounds.end());
    return rounds[rounds.size() / 2];
  }

  // With CUDA_LAUNCH_BLOCKING=1 the driver waits for each kernel; this is for what is none.
  void Settle() {
    if (!blocking_) return;
    cudaStreamCaptureStatus status;
    Check(cudaStreamIsCapturing(Stream(), &status), "work");
    if (status == cudaStreamCaptureStatusNone) Check(cudaStreamSynchronize(Stream()), "work");
  }

  static constexpr int kEvents = 64;
  cudaDeviceProp properties_;
  cudaEvent_t events_[kEvents];
  int64_t marks_ = 0;
  bool blocking_ = false;  // CUDA_LAUNCH_BLOCKING=1
  double bf16_flops_ = 0, fp32_flops_ = 0, copy_bandwidth_ = 0;
};

// The device, or why there is none.
CudaDevice* Open(uint64_t interface, std::string* error) {
  if (interface != TESSERA_CUDA_INTERFACE) {
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
  if (WgmmaUseOfEnvironment() == WgmmaUse::kAlways && properties.major != 9) {
    *error = "TESSERA_WGMMA is always, but " + std::string(properties.name) +
             " has no warpgroup instructions (sm_90 has them); use auto or never";
    return nullptr;
  }
  static NvidiaGpu gpu(properties);
  return &gpu;
}

}  // namespace
}  // namespace tessera::cuda

tessera::CudaDevice* TesseraCudaDevice(uint64_t interface, std::string* error) {
  try {
    return tessera::cuda::Open(interface, error);
  } catch (const tessera::CudaError& e) {
    *error = std::string("the GPU cannot be used: ") + e.what();
    return nullptr;
  }
}
