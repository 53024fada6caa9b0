#include "core/parallel.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "core/check.h"
#include "core/limits.h"

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

// The calling thread and its workers. A job is open while its chunks are given out; a worker that
// wakes too late finds it closed and sleeps on, so a job waits only for threads that work on it.
class Pool {
 public:
  // Starts threads - 1 workers, or as many of them as the system lets.
  explicit Pool(int threads) {
    try {
      for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { Work(i); });
    } catch (const std::system_error& e) {
      refusal_ = e.code().message();
    }
    // Spinning pays where each thread has a processor; else it takes the processor from the thread
    // that is waited for.
    spins_ = this->threads() <= UsableProcessors() ? kSpins : 0;
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
  // Why there are fewer threads than were asked for; empty if there are not.
  const std::string& refusal() const { return refusal_; }

  // False if another thread's job has the pool.
  bool TryRun(int64_t chunks, void (*body)(void*, int64_t), void* closure) {
    if (taken_.exchange(true, std::memory_order_acquire)) return false;
    body_ = body;
    closure_ = closure;
    chunks_ = chunks;
    next_.store(0, std::memory_order_relaxed);
    state_.store(kOpen, std::memory_order_release);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      generation_.fetch_add(1, std::memory_order_release);
      if (sleeping_ > 0) wake_.notify_all();
    }
    TakeChunks();
    state_.fetch_and(~kOpen, std::memory_order_acq_rel);
    for (int spins = 0; state_.load(std::memory_order_acquire) != 0; ++spins) {
      if (spins < spins_) {
        Pause();
      } else {
        std::this_thread::yield();
      }
    }
    const std::exception_ptr error = std::exchange(error_, nullptr);
    taken_.store(false, std::memory_order_release);
    if (error) std::rethrow_exception(error);
    return true;
  }

 private:
  // What a chunk throws (a refused allocation, say) is thrown again by the caller of the job.
  void TakeChunks() {
    t_inside = true;
    try {
      for (int64_t c; (c = next_.fetch_add(1, std::memory_order_relaxed)) < chunks_;)
        body_(closure_, c);
    } catch (...) {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!error_) error_ = std::current_exception();
    }
    t_inside = false;
  }

  // Joins the job that is open, if one is. The one it joins may be a later one than it woke for.
  bool Join() {
    uint32_t state = state_.load(std::memory_order_acquire);
    while ((state & kOpen) != 0)
      if (state_.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel)) return true;
    return false;
  }

  void Work(int index) {
    t_index = index;
    for (uint64_t seen = 0;;) {
      for (int spins = 0; generation_.load(std::memory_order_acquire) == seen; ++spins) {
        if (spins < spins_) {
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
      if (!Join()) continue;
      TakeChunks();
      state_.fetch_sub(1, std::memory_order_release);
    }
  }

  static constexpr uint32_t kOpen = 1u << 31;  // of state_; below it, how many workers are inside

  std::vector<std::thread> workers_;
  std::string refusal_;
  std::atomic<int> spins_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
  int sleeping_ = 0;
  bool stop_ = false;
  std::exception_ptr error_;
  std::atomic<bool> taken_{false};
  std::atomic<uint64_t> generation_{0};
  std::atomic<uint32_t> state_{0};
  alignas(64) std::atomic<int64_t> next_{0};
  int64_t chunks_ = 0;
  void (*body_)(void*, int64_t) = nullptr;
  void* closure_ = nullptr;
};

// Made on first use, so that a program that wants one thread never starts another.
std::unique_ptr<Pool>& ThePool() {
  static std::unique_ptr<Pool> pool;
  return pool;
}

Pool& MadePool() {
  if (ThePool() == nullptr) ThePool() = std::make_unique<Pool>(UsableProcessors());
  return *ThePool();
}

}  // namespace

void SetThreads(int threads) {
  TESSERA_CHECK(!t_inside && threads >= 0, "SetThreads(%d) inside a ParallelFor or negative",
                threads);
  const int wanted = threads == 0 ? UsableProcessors() : threads;
  if (ThePool() == nullptr || ThePool()->threads() != wanted)
    ThePool() = std::make_unique<Pool>(wanted);
}

std::string MissingThreads() { return MadePool().refusal(); }

int Threads() { return MadePool().threads(); }
int ThreadIndex() { return t_index; }

void* ThreadScratch(int64_t bytes, int slot) {
  TESSERA_CHECK(slot >= 0 && slot < 4, "scratch slot %d", slot);
  Scratch& s = t_scratch[slot];
  if (s.bytes < bytes) {
    std::free(s.data);
    s.bytes = (bytes + 4095) / 4096 * 4096;
    s.data = std::aligned_alloc(64, static_cast<size_t>(s.bytes));
    if (s.data == nullptr) {
      const int64_t refused = std::exchange(s.bytes, 0);
      throw OutOfMemory(absl::StrFormat("no memory for %d bytes of a thread's scratch", refused));
    }
  }
  return s.data;
}

namespace internal {

void ParallelFor(int64_t chunks, void (*body)(void*, int64_t), void* closure) {
  const auto in_place = [&] {
    for (int64_t c = 0; c < chunks; ++c) body(closure, c);
  };
  if (t_inside || chunks <= 1) return in_place();
  Pool& pool = MadePool();
  if (pool.threads() == 1 || !pool.TryRun(chunks, body, closure)) in_place();
}

}  // namespace internal
}  // namespace tessera
