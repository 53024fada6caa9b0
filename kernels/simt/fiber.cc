#include "kernels/simt/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/check.h"
#include "kernels/simt/sanitizer.h"

#ifndef __x86_64__
#error "SwitchStacks is written for x86-64"
#endif

namespace tessera::simt {
namespace {

// Keeps this stack's pointer in *save and goes on where `load` was kept. A new stack holds six
// zeroes for the registers and the address of its first function in the place of a return address.
[[gnu::naked, gnu::noinline]] void SwitchStacks([[maybe_unused]] void** save,
                                                [[maybe_unused]] void* load) {
  asm("pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
      "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
      "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret");
}

struct Leap {
  Fiber *from, *to;
};
thread_local constinit Leap leap = {};  // the switch being made

}  // namespace

Fiber::Fiber() {
#ifdef TESSERA_SIMT_TSAN
  tsan_fiber_ = __tsan_get_current_fiber();
#endif
}

Fiber::Fiber(size_t stack_bytes, void (*entry)()) : entry_(entry) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  bytes_ = (stack_bytes + page - 1) / page * page;
  mapped_bytes_ = bytes_ + page;
  mapping_ = mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  TESSERA_CHECK(mapping_ != MAP_FAILED, "no %zu bytes for a stack: %s", mapped_bytes_,
                std::strerror(errno));
  mprotect(mapping_, page, PROT_NONE);
  bottom_ = static_cast<char*>(mapping_) + page;
  // Tops that were all at one place of their pages would contend for the same few lines of the
  // cache, so each begins a few lines below the last one's.
  thread_local size_t fibers = 0;
  const size_t stagger = 64 * (1 + 5 * fibers++ % 61);
  // The ABI wants the stack 16-byte aligned before a call, thus 8 off at a function's first
  // instruction: the second word below an aligned top is the first function, and the zero above it
  // ends backtraces.
  void** top = reinterpret_cast<void**>(static_cast<char*>(mapping_) + mapped_bytes_ - stagger);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&Fiber::Enter);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  stack_pointer_ = top;
#ifdef TESSERA_SIMT_TSAN
  tsan_fiber_ = __tsan_create_fiber(0);
#endif
}

Fiber::~Fiber() {
  if (mapping_ == nullptr) return;
#ifdef TESSERA_SIMT_TSAN
  __tsan_destroy_fiber(tsan_fiber_);
#endif
  Permit(bottom_, bytes_);
  munmap(mapping_, mapped_bytes_);
}

[[gnu::no_sanitize_thread]] void Fiber::Enter() {
  Fiber* self = leap.to;
  self->Landed();
  self->entry_();
  __builtin_trap();  // there is no frame to return to
}

// Run by the fiber that a switch arrived in.
void Fiber::Landed() {
#ifdef TESSERA_SIMT_ASAN
  __sanitizer_finish_switch_fiber(fake_stack_, &leap.from->bottom_, &leap.from->bytes_);
#endif
}

[[gnu::no_sanitize_thread]] void Fiber::Switch(Fiber& from, Fiber& to) {
  leap = {&from, &to};
#ifdef TESSERA_SIMT_ASAN
  __sanitizer_start_switch_fiber(&from.fake_stack_, to.bottom_, to.bytes_);
#endif
#ifdef TESSERA_SIMT_TSAN
  __tsan_switch_to_fiber(to.tsan_fiber_, __tsan_switch_to_fiber_no_sync);
#endif
  SwitchStacks(&from.stack_pointer_, to.stack_pointer_);
  from.Landed();
}

}  // namespace tessera::simt
