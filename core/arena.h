#ifndef TESSERA_CORE_ARENA_H_
#define TESSERA_CORE_ARENA_H_

#include <cstdint>
#include <functional>
#include <map>

// One stretch of memory that a run's tensors are cut from. The same sequence of requests gets the
// same addresses, so a pass over shapes alone (Backing::kMeta, no memory behind it) tells exactly
// how much the real pass will need.

namespace tessera {

class Arena {
 public:
  enum class Backing : uint8_t {
    kMemory,    // address space for `capacity_bytes`; a page costs memory once it is written
    kPoisoned,  // the same for tests: blocks are born NaN, with guard words around them that are
                // checked when they die
    kMeta,      // no memory; addresses are null
  };
  Arena(Backing backing, int64_t capacity_bytes);
  // Over memory of a device, say, which `release` gives back; kMemory or kPoisoned (where the host
  // can touch it).
  struct Memory {
    void* data;
    int64_t bytes;
    std::function<void()> release;
  };
  explicit Arena(Memory memory, Backing backing = Backing::kMemory);
  static Memory HostMemory(int64_t bytes);  // throws OutOfMemory (core/limits.h)
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // Best fit, 64-byte aligned. A request beyond the capacity is a programmer's mistake: runs are
  // sized before they start.
  int64_t Allocate(int64_t bytes);  // an offset
  void Free(int64_t offset, int64_t bytes);
  void* At(int64_t offset) const { return base() == nullptr ? nullptr : base() + offset; }

  int64_t peak_bytes() const { return peak_; }  // the highest address ever in use
  int64_t live_bytes() const { return live_; }
  void ResetPeak() { peak_ = end_; }

 private:
  int64_t Padded(int64_t bytes) const;
  char* base() const { return static_cast<char*>(memory_.data); }

  Backing backing_;
  Memory memory_;
  std::map<int64_t, int64_t> holes_;  // free blocks below end_, offset -> bytes; never adjacent
  int64_t end_ = 0, peak_ = 0, live_ = 0;
};

}  // namespace tessera

#endif  // TESSERA_CORE_ARENA_H_
