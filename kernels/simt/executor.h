#ifndef TESSERA_KERNELS_SIMT_EXECUTOR_H_
#define TESSERA_KERNELS_SIMT_EXECUTOR_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

// Runs CUDA kernels on the host. Every thread of a block is a fiber; blocks run one after another
// on the calling thread. What a GPU leaves undefined is made to show: threads run in a chosen
// order, shared memory and in-flight copies hold NaN, a barrier that not all threads reach and a
// warp operation that not all named lanes reach are errors that say who waits where.

namespace tessera::simt {

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};

// A kernel's mistake, with the place in its source.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The order in which threads that could run do run, and blocks (forward, or reverse for kReverse).
enum class ThreadOrder : uint8_t { kForward, kReverse, kRandom };
void SetThreadOrder(ThreadOrder order,
                    uint64_t seed = 0);  // of the calling thread's launches from now on

using Where = std::source_location;

struct Thread {
  Dim3 index;
  int linear = 0;  // in the block
  int lane() const { return linear % 32; }
  int warp() const { return linear / 32; }
};
struct Block {
  Dim3 index, block_dim, grid_dim;
  unsigned char* dynamic_shared = nullptr;
};
const Thread& ThisThread();
const Block& ThisBlock();

constexpr int kMaxThreads = 1024;
constexpr size_t kMaxSharedBytes = 227 * 1024;  // of a block, on sm_90

void RunGrid(Dim3 grid, Dim3 block, size_t dynamic_shared_bytes, void (*body)(const void*),
             const void* closure);

// Waits for all threads of the block; returns for how many of them `vote` was true.
int BlockBarrier(bool vote, const char* what, const Where& where);

// What the lanes of a warp exchange: each lane's bytes, kLaneBytes apart.
constexpr int kLaneBytes = 64;
// Called once, when the last lane has come, to turn what the lanes brought into what they take.
using CombineLanes = void (*)(unsigned char* lanes, uint32_t mask);
// Waits for the lanes of `mask`. The result is valid until the lane's next collective.
const unsigned char* WarpCollective(uint32_t mask, const void* in, int bytes, CombineLanes combine,
                                    const char* what, const Where& where);

// The block's own copy of a __shared__ variable, known by its key; full of NaN at first.
void* SharedVariable(const void* key, size_t bytes);

// cp.async: the copy happens when it is waited for; until then its target is NaN.
void CopyAsync(void* shared, const void* global, int bytes, const Where& where);
void CopyAsyncCommit();
void CopyAsyncWait(int groups_left);

template <class... Parameters, class... Arguments>
void Launch(void (*kernel)(Parameters...), Dim3 grid, Dim3 block, size_t dynamic_shared_bytes,
            Arguments&&... arguments) {
  using Call = std::pair<void (*)(Parameters...), std::tuple<std::decay_t<Parameters>...>>;
  const Call call{kernel, {static_cast<Parameters>(std::forward<Arguments>(arguments))...}};
  RunGrid(
      grid, block, dynamic_shared_bytes,
      [](const void* c) {
        const Call& call = *static_cast<const Call*>(c);
        std::apply(call.first, call.second);
      },
      &call);
}

}  // namespace tessera::simt

#endif  // TESSERA_KERNELS_SIMT_EXECUTOR_H_
