#include "core/parallel.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/check.h"

namespace tessera {
namespace {

thread_local int t_index = 0;
thread_local bool t_inside = false;  // in a ParallelFor: a nested one runs in place

struct Scratch {
  void* data = nullptr;
  int64_t bytes = 0;
  ~Scratch() { std::free(data); }
};
thread_local Scratch t_scratch[4];

inline void Pause() { __builtin_ia32_pause(); }

// Workers spin for a few microseconds after each job, since kernels follow one another closely, and
// then sleep, since a thread that spins for long slows its neighbours more than it saves.
constexpr int kSpins = 2000;

class Pool {
 public:
  explicit Pool(int threads) {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { Work(i); });
  }
  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
      generation_.fetch_add(1);
    }
    wake_.notify_all();
    for (std::thread& t : workers_) t.join();
  }
  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  void Run(int64_t chunks, void (*body)(void*, int64_t), void* closure) {
    body_ = body;
    closure_ = closure;
    chunks_ = chunks;
    next_.store(0, std::memory_order_relaxed);
    busy_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      generation_.fetch_add(1, std::memory_order_release);
      if (sleeping_ > 0) wake_.notify_all();
    }
    TakeChunks();
    for (int spins = 0; busy_.load(std::memory_order_acquire) != 0; ++spins) {
      if (spins < kSpins) {
        Pause();
      } else {
        std::this_thread::yield();
      }
    }
  }

 private:
  void TakeChunks() {
    t_inside = true;
    for (int64_t c; (c = next_.fetch_add(1, std::memory_order_relaxed)) < chunks_;)
      body_(closure_, c);
    t_inside = false;
  }

  void Work(int index) {
    t_index = index;
    for (uint64_t seen = 0;;) {
      for (int spins = 0; generation_.load(std::memory_order_acquire) == seen; ++spins) {
        if (spins < kSpins) {
          Pause();
          continue;
        }
        std::unique_lock<std::mutex> lock(mutex_);
        ++sleeping_;
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != seen; });
        --sleeping_;
      }
      seen = generation_.load(std::memory_order_acquire);
      if (stop_) return;
      TakeChunks();
      busy_.fetch_sub(1, std::memory_order_release);
    }
  }

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  int sleeping_ = 0;
  bool stop_ = false;
  std::atomic<uint64_t> generation_{0};
  std::atomic<int> busy_{0};
  alignas(64) std::atomic<int64_t> next_{0};
  int64_t chunks_ = 0;
  void (*body_)(void*, int64_t) = nullptr;
  void* closure_ = nullptr;
};

int Cores() { return std::max(1, static_cast<int>(std::thread::hardware_concurrency())); }

std::unique_ptr<Pool>& ThePool() {
  static std::unique_ptr<Pool> pool = std::make_unique<Pool>(Cores());
  return pool;
}

}  // namespace

void SetThreads(int threads) {
  TESSERA_CHECK(!t_inside && threads >= 0, "SetThreads(%d) inside a ParallelFor or negative",
                threads);
  const int wanted = threads == 0 ? Cores() : threads;
  if (ThePool()->threads() != wanted) ThePool() = std::make_unique<Pool>(wanted);
}

int Threads() { return ThePool()->threads(); }
int ThreadIndex() { return t_index; }

void* ThreadScratch(int64_t bytes, int slot) {
  TESSERA_CHECK(slot >= 0 && slot < 4, "scratch slot %d", slot);
  Scratch& s = t_scratch[slot];
  if (s.bytes < bytes) {
    std::free(s.data);
    s.bytes = (bytes + 4095) / 4096 * 4096;
    s.data = std::aligned_alloc(64, static_cast<size_t>(s.bytes));
    TESSERA_CHECK(s.data != nullptr, "no memory for %ld bytes of scratch", s.bytes);
  }
  return s.data;
}

namespace internal {

void ParallelFor(int64_t chunks, void (*body)(void*, int64_t), void* closure) {
  Pool& pool = *ThePool();
  if (t_inside || pool.threads() == 1 || chunks <= 1) {
    for (int64_t c = 0; c < chunks; ++c) body(closure, c);
    return;
  }
  pool.Run(chunks, body, closure);
}

}  // namespace internal
}  // namespace tessera
