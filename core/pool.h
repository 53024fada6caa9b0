#ifndef TESSERA_CORE_POOL_H_
#define TESSERA_CORE_POOL_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace tessera {
class Engine;
}

namespace tessera::internal {

// The calling thread and its workers. A job is open while its chunks are given out; a worker that
// wakes too late finds it closed and sleeps on, so a job waits only for threads that work on it.
class Pool {
 public:
  // Starts threads - 1 workers, or as many of them as the system lets. `engine` is theirs.
  Pool(int threads, Engine* engine);
  ~Pool();
  int threads() const { return static_cast<int>(workers_.size()) + 1; }
  // Why there are fewer threads than were asked for; empty if there are not.
  const std::string& refusal() const { return refusal_; }

  // False if another thread's job has the pool.
  bool TryRun(int64_t chunks, void (*body)(void*, int64_t), void* closure);

  static bool Inside();      // whether the calling thread is in a job, of any pool
  static int ThreadIndex();  // of the calling thread in its pool

 private:
  void TakeChunks();
  bool Join();
  void Work(int index, Engine* engine);

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

}  // namespace tessera::internal

#endif  // TESSERA_CORE_POOL_H_
