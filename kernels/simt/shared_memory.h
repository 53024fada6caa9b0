#ifndef TESSERA_KERNELS_SIMT_SHARED_MEMORY_H_
#define TESSERA_KERNELS_SIMT_SHARED_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace tessera::simt {

// The shared memory of one block at a time. It begins as NaNs in every format of 16 and 32 bits, as
// do the zones around each variable: a read before the first write, or past an end, spoils the
// result, and a write into a zone is found when the block's threads next meet. What jumps over a
// zone at either end of it all meets a page that is not there. AddressSanitizer knows the zones too
// and stops at the very access.
class SharedMemory {
 public:
  SharedMemory();
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  void Begin(int64_t dynamic_bytes);    // of a block: forgets the last one's variables
  void* base() const { return base_; }  // address 0 of it, aligned to a page
  void* dynamic() const { return base_ + kEndZone; }
  // The variable that `key` stands for, made by the first thread that declares it.
  void* Variable(const void* key, const char* name, size_t bytes, size_t alignment);

  bool Contains(const void* p, size_t bytes) const;  // within one variable
  std::string Damage() const;  // empty, or which variable was written past which end

 private:
  static constexpr size_t kEndZone = 1024;  // before and after the dynamic memory
  static constexpr size_t kZone = 256;      // after every other variable
  struct Placed {
    const void* key;
    const char* name;
    size_t begin, bytes, zone;  // `zone` bytes follow it
  };
  void Place(Placed variable);

  unsigned char* base_;
  size_t page_;
  std::vector<Placed> placed_;  // in order of place; the first is the dynamic memory
};

}  // namespace tessera::simt

#endif  // TESSERA_KERNELS_SIMT_SHARED_MEMORY_H_
