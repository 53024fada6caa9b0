#include "tests/device/host_gpu.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#define TESSERA_DEVICE simt_device
#include "kernels/cuda/registry.h"

namespace tessera::testing {
namespace {

constexpr int64_t kPage = 4096;

}  // namespace

struct HostGpu::Recorded : Graph {
  std::vector<Work> work;
};

HostGpu::HostGpu(Mode mode, int64_t memory_bytes) : mode_(mode), memory_bytes_(memory_bytes) {
  const char* const blocking = std::getenv("CUDA_LAUNCH_BLOCKING");
  blocking_ = blocking != nullptr && std::string(blocking) == "1";
}

HostGpu::~HostGpu() {
  RunUntil(marks_ + 1);
  while (!device_memory_.empty()) Free(Memory::kDevice, device_memory_.begin()->first);
}

CudaDevice::Kernel HostGpu::Find(const char* args_type, size_t args_bytes) {
  return simt_device::KernelEntry::Find(args_type, args_bytes);
}

void HostGpu::Refuse(const char* what) const {
  if (capture_ != nullptr) throw CudaError(std::string(what) + " while a graph is recorded");
}

void HostGpu::Do(Work work) {
  if (capture_ != nullptr) {
    capture_->push_back(std::move(work));
  } else if (mode_ == Mode::kAtOnce) {
    work();
  } else {
    queue_.push_back(std::move(work));
    if (blocking_) RunUntil(marks_ + 1);
  }
}

void HostGpu::Protect(int access) {
  for (const auto& [p, bytes] : device_memory_) mprotect(p, static_cast<size_t>(bytes), access);
}

// After a failure nothing is done any more, and whoever waits is told, as by a GPU.
void HostGpu::RunUntil(int64_t mark) {
  Stream* const stream = std::exchange(simt::LaunchStream(), nullptr);
  Protect(PROT_READ | PROT_WRITE);
  if (failure_ != nullptr) queue_.clear();
  while (passed_ < mark && !queue_.empty()) {
    const Work work = std::move(queue_.front());
    queue_.pop_front();
    try {
      work();
    } catch (...) {
      if (failure_ == nullptr) failure_ = std::current_exception();
      queue_.clear();
    }
  }
  if (mode_ == Mode::kLater) Protect(PROT_NONE);
  simt::LaunchStream() = stream;
}

void* HostGpu::Allocate(Memory kind, int64_t bytes) {
  Refuse("an allocation");
  ++counts_.allocations;
  if (kind == Memory::kPinned) return std::malloc(static_cast<size_t>(bytes));
  if (bytes > memory_bytes_) throw CudaError("out of memory");
  const int64_t size = (std::max<int64_t>(bytes, 1) + kPage - 1) / kPage * kPage;
  void* const p = mmap(nullptr, static_cast<size_t>(size), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) throw CudaError("out of memory");
  device_memory_[p] = size;
  if (mode_ == Mode::kAtOnce) return p;
  std::memset(p, 0xFF, static_cast<size_t>(size));  // NaN
  mprotect(p, static_cast<size_t>(size), PROT_NONE);
  return p;
}

void HostGpu::Free(Memory kind, void* p) noexcept {
  RunUntil(marks_ + 1);
  if (kind == Memory::kPinned) return std::free(p);
  munmap(p, static_cast<size_t>(device_memory_.at(p)));
  device_memory_.erase(p);
}

void HostGpu::Upload(void* to, const void* from, int64_t bytes) {
  Refuse("a copy");
  const auto* const data = static_cast<const char*>(from);
  Do([to, copy = std::vector<char>(data, data + bytes)] {
    std::memcpy(to, copy.data(), copy.size());
  });
}
void HostGpu::Download(void* to, const void* from, int64_t bytes) {
  StartDownload(to, from, bytes);
  Wait(Mark());
}
void HostGpu::StartUpload(void* to, const void* from, int64_t bytes) {
  Refuse("a copy");
  Do([=] { std::memcpy(to, from, static_cast<size_t>(bytes)); });
}
void HostGpu::StartDownload(void* to, const void* from, int64_t bytes) {
  Refuse("a copy");
  Do([=] { std::memcpy(to, from, static_cast<size_t>(bytes)); });
}

void HostGpu::Zero(void* to, int64_t rows, int64_t stride_bytes, int64_t row_bytes) {
  Do([=] {
    for (int64_t r = 0; r < rows; ++r)
      std::memset(static_cast<char*>(to) + r * stride_bytes, 0, static_cast<size_t>(row_bytes));
  });
}

int64_t HostGpu::Mark() {
  Refuse("a mark");
  Do([this, mark = ++marks_] { passed_ = mark; });
  return marks_;
}
void HostGpu::Wait(int64_t mark) {
  Refuse("a wait");
  ++counts_.waits;
  RunUntil(mark);
  if (failure_ == nullptr) return;
  try {
    std::rethrow_exception(failure_);
  } catch (const std::exception& e) {
    throw CudaError(e.what());
  }
}

void HostGpu::BeginCapture() {
  Refuse("a second recording");
  capture_ = std::make_unique<std::vector<Work>>();
  simt::LaunchStream() = this;
}
void HostGpu::EndCapture(std::unique_ptr<Graph>* graph) {
  ++counts_.captures;
  if (mode_ == Mode::kAtOnce) simt::LaunchStream() = nullptr;
  auto recorded = std::make_unique<Recorded>();
  recorded->work = std::move(*std::exchange(capture_, nullptr));
  *graph = std::move(recorded);
}
void HostGpu::Launch(Graph& graph) {
  Refuse("a launch of a graph");
  ++counts_.graph_launches;
  for (const Work& work : static_cast<Recorded&>(graph).work) Do(work);
}

void HostGpu::Enqueue(std::function<void()> launch) {
  ++counts_.launches;
  Do(std::move(launch));
}

float* HostGpu::TakeScratch(int64_t count) {
  float* const floats = scratch_.Take(count, [this](int64_t grown) {
    // Where work is done at once, the host has its own scratch memory outside of recordings.
    if (mode_ == Mode::kLater) Refuse("taking scratch memory");
    auto capture = std::exchange(capture_, nullptr);
    auto* const memory = static_cast<float*>(Allocate(Memory::kDevice, grown * 4));
    capture_ = std::move(capture);
    return memory;
  });
  Do([floats, count] { std::memset(floats, 0xFF, static_cast<size_t>(count) * 4); });
  return floats;
}
// Whoever reads it later finds NaN.
void HostGpu::GiveScratchBack(float* floats, int64_t count) {
  Do([floats, count] { std::memset(floats, 0xFF, static_cast<size_t>(count) * 4); });
  scratch_.GiveBack(count);
}

}  // namespace tessera::testing
