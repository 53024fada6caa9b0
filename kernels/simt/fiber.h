#ifndef TESSERA_KERNELS_SIMT_FIBER_H_
#define TESSERA_KERNELS_SIMT_FIBER_H_

#include <cstddef>

namespace tessera::simt {

// A stack to run on. Switching takes a few nanoseconds, since nothing but the registers that a
// callee must keep is saved and the operating system is not asked: a block of a thousand threads
// meets at a barrier in microseconds. A fiber stays on the OS thread that first runs it.
class Fiber {
 public:
  Fiber();                                     // the stack that its caller is running on
  Fiber(size_t stack_bytes, void (*entry)());  // a new one, where entry, which must not return,
                                               // begins at the first switch
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Leaves `from`, which is running, for `to`; returns when something switches to `from` again.
  static void Switch(Fiber& from, Fiber& to);

 private:
  static void Enter();
  void Landed();

  void* stack_pointer_ = nullptr;
  void* mapping_ = nullptr;  // of the stack and of the guard page under it
  size_t mapped_bytes_ = 0;
  void (*entry_)() = nullptr;
  // For AddressSanitizer, the bounds of the stack and its shadow of fake frames; for
  // ThreadSanitizer, its name for the fiber.
  const void* bottom_ = nullptr;
  size_t bytes_ = 0;
  void* fake_stack_ = nullptr;
  void* tsan_fiber_ = nullptr;
};

}  // namespace tessera::simt

#endif  // TESSERA_KERNELS_SIMT_FIBER_H_
