#ifndef TESSERA_CORE_ENGINE_H_
#define TESSERA_CORE_ENGINE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

// What computations run on besides memory: threads, an instruction set, a GPU. Threads of a process
// that use an engine each work at once, and each gets the bits that it gets alone:
//
//   Engine engine(4);
//   const Engine::Use use(engine);  // this thread's, until the end of the block
//   TrainRun(...);
//
// A thread that chooses none shares the process's own. The engine belongs to the calling thread and
// is not handed down through models, ops and kernels: those are functions of their arguments, which
// are the same whatever runs them, and would hand on what only ParallelFor and Dispatch ask for.

namespace tessera {

class CudaDevice;          // kernels/device/cuda_device.h
enum class Isa : uint8_t;  // kernels/cpu/isa.h
namespace internal {
class Pool;  // core/pool.h
}

class Engine {
 public:
  // `threads` as for SetThreads (core/parallel.h); they start with the first work.
  explicit Engine(int threads = 0);
  ~Engine();  // when no thread uses it
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // The calling thread's; of the threads that an engine started, that engine.
  static Engine& Current();
  class Use {
   public:
    explicit Use(Engine& engine);
    ~Use();
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

   private:
    Engine* const before_;
  };

  void SetThreads(int threads);
  internal::Pool& pool();

  // Chosen and read through kernels/cpu/isa.h; -1: none chosen.
  std::atomic<int> isa{-1};
  // Opened and read through kernels/device/cuda.h.
  std::shared_ptr<CudaDevice> cuda;

 private:
  friend class internal::Pool;
  static void Enter(Engine* engine);  // for the calling thread, until its end

  int wanted_;
  std::mutex making_;
  std::unique_ptr<internal::Pool> owned_;
  std::atomic<internal::Pool*> pool_{nullptr};
};

}  // namespace tessera

#endif  // TESSERA_CORE_ENGINE_H_
