#ifndef TESSERA_KERNELS_DEVICE_SCRATCH_STACK_H_
#define TESSERA_KERNELS_DEVICE_SCRATCH_STACK_H_

#include <algorithm>
#include <cstdint>

namespace tessera {

// A GPU's memory for partial results between launches, given out and taken back in the order of a
// stack, so that a kernel's part stays its own while it calls another that takes some too. Work is
// done in the order of the calls, so what is given back may be given out again at once.
class ScratchStack {
 public:
  // `allocate(count)` is asked for so many floats when there are too few. What it gave before
  // stays: live parts lie in it and graphs hold its addresses. Growing at least to twice the size
  // bounds what is lost by that. Nothing changes if it throws.
  template <class Allocate>
  float* Take(int64_t count, Allocate&& allocate) {
    const int64_t size = Padded(count);
    if (used_ + size > capacity_) {
      const int64_t grown = std::max(used_ + size, 2 * capacity_);
      memory_ = allocate(grown);
      capacity_ = grown;
    }
    float* const part = memory_ + used_;
    used_ += size;
    return part;
  }
  // The part that was taken last.
  void GiveBack(int64_t count) { used_ -= Padded(count); }

 private:
  static int64_t Padded(int64_t count) { return (count + 63) / 64 * 64; }  // to 256 bytes

  float* memory_ = nullptr;
  int64_t capacity_ = 0, used_ = 0;
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_DEVICE_SCRATCH_STACK_H_
