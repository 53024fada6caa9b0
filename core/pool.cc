#include "core/pool.h"

#include <system_error>
#include <utility>

#include "core/engine.h"
#include "core/limits.h"

namespace tessera::internal {
namespace {

thread_local int t_index = 0;
thread_local bool t_inside = false;  // in a ParallelFor: a nested one runs in place

inline void Pause() { __builtin_ia32_pause(); }

// Workers spin for a few microseconds after each job, since kernels follow one another closely, and
// then sleep, since a thread that spins for long slows its neighbours more than it saves.
constexpr int kSpins = 2000;

}  // namespace

bool Pool::Inside() { return t_inside; }
int Pool::ThreadIndex() { return t_index; }

Pool::Pool(int threads, Engine* engine) {
  try {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i, engine] { Work(i, engine); });
  } catch (const std::system_error& e) {
    refusal_ = e.code().message();
  }
  // Spinning pays where each thread has a processor; else it takes the processor from the thread
  // that is waited for.
  spins_ = this->threads() <= UsableProcessors() ? kSpins : 0;
}

Pool::~Pool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
    generation_.fetch_add(1);
  }
  wake_.notify_all();
  for (std::thread& t : workers_) t.join();
}

bool Pool::TryRun(int64_t chunks, void (*body)(void*, int64_t), void* closure) {
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

// What a chunk throws (a refused allocation, say) is thrown again by the caller of the job.
void Pool::TakeChunks() {
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
bool Pool::Join() {
  uint32_t state = state_.load(std::memory_order_acquire);
  while ((state & kOpen) != 0)
    if (state_.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel)) return true;
  return false;
}

void Pool::Work(int index, Engine* engine) {
  t_index = index;
  Engine::Enter(engine);
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

}  // namespace tessera::internal
