#include "kernels/simt/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

#include "core/check.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// void tessera_fiber_switch(void** save, void* load): the callee-saved registers of the System V
// ABI go on the old stack and come from the new one.
asm(R"(
.text
.globl tessera_fiber_switch
.type tessera_fiber_switch, @function
tessera_fiber_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size tessera_fiber_switch, . - tessera_fiber_switch
)");
extern "C" void tessera_fiber_switch(void** save, void* load);

namespace tessera::simt {

Fiber::Fiber(size_t stack_bytes) : stack_bytes_(stack_bytes) {
  void* memory = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  TESSERA_CHECK(memory != MAP_FAILED, "no memory for a stack of %zu bytes", stack_bytes);
  stack_ = static_cast<char*>(memory);
  // A page that nobody may touch: a stack that overflows stops there.
  mprotect(stack_, static_cast<size_t>(getpagesize()), PROT_NONE);
}

Fiber::~Fiber() {
  if (stack_ != nullptr) munmap(stack_, stack_bytes_);
}

void Fiber::Start(void (*entry)()) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(stack_, stack_bytes_);
#endif
  // Where the switch finds six registers and the address to return to; the stack is then as after
  // a call: 8 beyond a multiple of 16.
  auto** top = reinterpret_cast<void**>(stack_ + stack_bytes_ - 64);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  stack_pointer_ = top;
  shadow_ = nullptr;
  shadow_bottom_ = stack_;
  shadow_bytes_ = stack_bytes_;
}

void Fiber::SwitchFrom(Fiber& from, [[maybe_unused]] bool dying) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(dying ? nullptr : &from.shadow_, shadow_bottom_, shadow_bytes_);
#endif
  tessera_fiber_switch(&from.stack_pointer_, stack_pointer_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from.shadow_, nullptr, nullptr);
#endif
}

void FiberEntered([[maybe_unused]] Fiber& self, [[maybe_unused]] Fiber& from) {
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom;
  size_t bytes;
  __sanitizer_finish_switch_fiber(self.shadow_, &bottom, &bytes);
  if (from.stack_ == nullptr) {  // the stack of the operating system's thread: learnt here
    from.shadow_bottom_ = bottom;
    from.shadow_bytes_ = bytes;
  }
#endif
}

}  // namespace tessera::simt
