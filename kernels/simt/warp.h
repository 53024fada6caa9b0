#ifndef TESSERA_KERNELS_SIMT_WARP_H_
#define TESSERA_KERNELS_SIMT_WARP_H_

#include <cstdint>
#include <source_location>

#include "kernels/simt/block.h"

// What the lanes of a warp do together. The lanes that a mask names meet in one call, each bringing
// a value; the last to arrive computes what each takes away. As in CUDA only SyncWarp orders the
// lanes' accesses to memory.

namespace tessera::simt {

struct alignas(16) LaneValue {
  unsigned char data[48];
  int source;  // of a shuffle
};

struct Meeting {
  uint32_t mask = 0, arrived = 0;
  uint32_t leaving = 0;  // lanes that have not taken their values away yet
  Call call = {};
  LaneValue lanes[kWarpSize];
};

// Replaces what the lanes in the mask brought by what they take. `bytes` are those of a value.
using Combine = void (*)(LaneValue* lanes, uint32_t mask, int bytes);

struct Brought {
  void* value = nullptr;  // read, then written
  int bytes = 0;
  int source = 0;
};
enum class Ordering : uint8_t { kNone, kMemory };
void Meet(uint32_t mask, const Call& call, Brought brought, Combine combine,
          Ordering ordering = Ordering::kNone);

void SyncWarp(uint32_t mask, std::source_location at);
// The value of lane `source`.
void Shuffle(uint32_t mask, const Call& call, void* value, int bytes, int source);
uint32_t Ballot(uint32_t mask, const Call& call, bool vote);
uint32_t MatchAny(uint32_t mask, const Call& call, void* value, int bytes);

enum class Reduction : uint8_t { kAdd, kMin, kMax, kAnd, kOr, kXor };
template <class T>  // int, unsigned
T Reduce(uint32_t mask, const Call& call, T value, Reduction reduction);

// The warp's matrix instructions; fragments as the PTX manual lays them out.
enum class Layout : uint8_t { kPlain, kTransposed };
void LoadMatrices(uint32_t (&r)[4], const void* row, Layout layout, std::source_location at);
void MultiplyBf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                  std::source_location at);  // m16n8k16
void MultiplyFp16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                  std::source_location at);  // m16n8k16
void MultiplyTf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                  std::source_location at);  // m16n8k8

// cp.async: `bytes` from global memory, then `zeros`, to shared memory. They arrive as late as they
// may, when the thread waits for their group; until then the destination is poisoned.
void IssueCopy(void* to, const void* from, int bytes, int zeros, std::source_location at);
void CommitCopies();
void WaitCopies(int64_t groups_in_flight);

}  // namespace tessera::simt

#endif  // TESSERA_KERNELS_SIMT_WARP_H_
