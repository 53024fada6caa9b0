#ifndef TESSERA_KERNELS_SIMT_BLOCK_H_
#define TESSERA_KERNELS_SIMT_BLOCK_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels/simt/error.h"
#include "kernels/simt/fiber.h"
#include "kernels/simt/shared_memory.h"
#include "kernels/simt/vector_types.h"

// Runs CUDA kernels on the host. The blocks of a grid run one after another on the calling OS
// thread, and every thread of a block is a fiber that runs until it must wait for others, or ends.
// Which of those that can run does so next is the Order's choice: the results of a correct kernel
// do not depend on it, those of one that misses a barrier do. Two OS threads may run grids at once.
// Nothing is said of time, of the rounding of tensor cores, or of memory order between blocks.

namespace tessera::simt {

using device::dim3;
using device::uint3;

enum class Order : uint8_t {
  kForward,  // by increasing index of blocks and threads
  kReverse,  // by decreasing index
  kRandom,   // any thread that can run
  kWarps,    // the warp that a random ranking puts first runs as far as it can get
};
constexpr const char* Name(Order order) {
  constexpr const char* kNames[] = {"forward", "reverse", "random", "warps"};
  return kNames[static_cast<int>(order)];
}
// Of the grids that this OS thread runs from now on; at first kForward.
void SetOrder(Order order, uint64_t seed = 0);
// Whether this build reports races itself (ThreadSanitizer): then one order tells all.
bool ReportsRaces();

// Runs kernel(arguments) in every thread. Throws Error.
void RunGrid(dim3 grid, dim3 block, int64_t shared_bytes, void (*kernel)(void*), void* arguments);

constexpr int kWarpSize = 32;
constexpr int kMostThreads = 1024;  // in a block

// An asynchronous copy that was issued and not waited for.
struct AsyncCopy {
  void* to;
  const void* from;
  int bytes, zeros;  // that follow them
  int64_t group;
};

struct Mbarrier;  // (hopper.h)
struct WarpgroupProduct;

struct Thread {
  Thread(size_t stack_bytes, void (*entry)());
  ~Thread();
  enum class State : uint8_t { kNew, kStarted, kDone };
  uint3 index = {};
  int linear = 0, warp = 0, lane = 0;
  State state = State::kDone;
  const Call* waits_in = nullptr;
  std::vector<AsyncCopy> copies;
  int64_t open_group = 0;                  // the one that copies are added to
  std::vector<WarpgroupProduct> products;  // of a warpgroup, issued and not waited for
  int64_t open_products = 0;
  std::vector<const float*> fenced;  // sums that its next products may have
  Fiber fiber;
};

struct Meeting;  // of some lanes of a warp (warp.h)

// The block that this OS thread runs: its threads, and what they share.
class Block {
 public:
  Block();
  ~Block();
  static Block& Running();  // throws Error outside a kernel

  void Run(dim3 grid, dim3 block, int64_t shared_bytes, void (*kernel)(void*), void* arguments);

  // __syncthreads_count.
  int Barrier(bool vote, const Call& call);

  Thread& self() { return *self_; }
  SharedMemory& shared() { return shared_; }
  uint32_t LiveLanes(int warp) const { return live_lanes_[warp]; }
  uint32_t AllLanes(int warp) const {  // those that the block's size gives it
    const int lanes = count_ - warp * kWarpSize;
    return lanes >= kWarpSize ? ~0u : (1u << lanes) - 1;
  }
  std::vector<std::unique_ptr<Meeting>>& meetings(int warp) { return meetings_[warp]; }

  std::map<uint64_t*, Mbarrier>& mbarriers() { return mbarriers_; }
  // Warps of a warpgroup must have issued the same products by the end.
  void CountProduct(int warp, const Call& call) {
    ++products_[warp];
    product_call_ = call;
  }

  // Lets others run until something wakes this thread.
  void Wait(const Call& call);
  void Wake(int warp, uint32_t lanes);                    // and puts them in the Order's order
  [[noreturn]] void Fail(const std::string& what) const;  // an Error that names this thread

 private:
  struct Unwound {};  // thrown through the kernel's frames in a thread of a block that failed

  static void FiberMain();
  Thread* RunThread();  // the next one to run
  void FinishCopies();
  void RunBlock(uint64_t block_index);
  void Begin();
  void Unwind();
  void Push(int thread);
  Thread* Next();
  void SwitchTo(Thread* next);  // null: to the stack that called Run
  void CheckProducts() const;
  void CheckShared(const Call* met) const;  // throws if a variable was written past its ends
  std::string BlockName() const;
  std::string Deadlock() const;
  uint32_t Random();

  std::vector<std::unique_ptr<Thread>> threads_;
  Thread* self_ = nullptr;
  Fiber* main_ = nullptr;
  void (*kernel_)(void*) = nullptr;
  void* arguments_ = nullptr;
  dim3 grid_, size_;
  int64_t shared_bytes_ = 0;
  int count_ = 0, live_ = 0;  // threads of the block, and those that have not returned
  uint32_t live_lanes_[kMostThreads / kWarpSize] = {};
  std::exception_ptr error_;
  bool unwinding_ = false;

  // The threads that can run: a ring, or for kWarps the lanes of each warp.
  std::array<uint16_t, kMostThreads> ready_ = {};
  uint32_t ready_lanes_[kMostThreads / kWarpSize] = {};
  int ready_first_ = 0, ready_count_ = 0;
  Order order_ = Order::kForward;
  uint64_t random_ = 1;
  int ranking_[kMostThreads / kWarpSize] = {};  // warps, in the order that kWarps prefers

  // __syncthreads. Threads leave one barrier while others arrive at the next, so that what orders
  // them, as ThreadSanitizer is told, takes turns.
  int arrived_ = 0, votes_ = 0, result_ = 0;
  unsigned barriers_ = 0;
  Call barrier_call_ = {};
  char barrier_sync_[2] = {}, begin_sync_ = 0, end_sync_ = 0;

  SharedMemory shared_;
  std::map<uint64_t*, Mbarrier> mbarriers_;
  int products_[kMostThreads / kWarpSize] = {};  // issued by each warp
  Call product_call_ = {};
  std::vector<std::unique_ptr<Meeting>> meetings_[kMostThreads / kWarpSize];
};

// Of the running kernel. `key` is an address that stands for the variable.
void* DynamicShared();
void* SharedVariable(const void* key, const char* name, size_t bytes, size_t alignment);
int Lane();  // of the running thread

// threadIdx and its like, as they are for the thread that runs.
namespace device {
extern constinit thread_local uint3 threadIdx, blockIdx;
extern constinit thread_local dim3 blockDim, gridDim;
}  // namespace device

}  // namespace tessera::simt

#endif  // TESSERA_KERNELS_SIMT_BLOCK_H_
