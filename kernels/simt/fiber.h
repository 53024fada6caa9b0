#ifndef TESSERA_KERNELS_SIMT_FIBER_H_
#define TESSERA_KERNELS_SIMT_FIBER_H_

#include <cstddef>

// A thread of execution with its own stack that runs until it hands over to another by name. A
// switch saves six registers, some nanoseconds, so that a thousand CUDA threads cost little more
// than a loop over them.

namespace tessera::simt {

class Fiber {
 public:
  Fiber() = default;  // of the stack that runs already
  explicit Fiber(size_t stack_bytes);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // The next switch to this fiber starts `entry` on an empty stack. Entry never returns: its last
  // act is a switch away.
  void Start(void (*entry)());

  // Leaves `from`, which is running, for this one. `dying`: nobody will come back to `from` before
  // it is started again.
  void SwitchFrom(Fiber& from, bool dying = false);

 private:
  friend void FiberEntered(Fiber& self, Fiber& from);
  void* stack_pointer_ = nullptr;
  char* stack_ = nullptr;
  size_t stack_bytes_ = 0;
  // What AddressSanitizer keeps for a stack that is not running.
  void* shadow_ = nullptr;
  const void* shadow_bottom_ = nullptr;
  size_t shadow_bytes_ = 0;
};

// The first call of an entry function, with the fiber that started it.
void FiberEntered(Fiber& self, Fiber& from);

}  // namespace tessera::simt

#endif  // TESSERA_KERNELS_SIMT_FIBER_H_
