#ifndef TESSERA_KERNELS_SIMT_SANITIZER_H_
#define TESSERA_KERNELS_SIMT_SANITIZER_H_

#include <cstddef>

// What the executor tells the sanitizers, all empty in ordinary builds. To ThreadSanitizer every
// CUDA thread is a thread of its own, ordered with the others by what orders them on a GPU and by
// nothing else, so that its race check is one of the kernel; the executor's own data, which the
// threads share without locks because only one of them runs at a time, is kept out of its sight.

#if defined(__SANITIZE_ADDRESS__)
#define TESSERA_SIMT_ASAN 1
#elif defined(__SANITIZE_THREAD__)
#define TESSERA_SIMT_TSAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TESSERA_SIMT_ASAN 1
#elif __has_feature(thread_sanitizer)
#define TESSERA_SIMT_TSAN 1
#endif
#endif

#ifdef TESSERA_SIMT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef TESSERA_SIMT_TSAN
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
void __tsan_read_range(void* address, unsigned long bytes);
void __tsan_write_range(void* address, unsigned long bytes);
}
#endif

namespace tessera::simt {

#ifdef TESSERA_SIMT_ASAN
inline constexpr bool kAddressesChecked = true;
inline void Forbid(const void* p, size_t bytes) { __asan_poison_memory_region(p, bytes); }
inline void Permit(const void* p, size_t bytes) { __asan_unpoison_memory_region(p, bytes); }
#else
inline constexpr bool kAddressesChecked = false;
inline void Forbid(const void*, size_t) {}
inline void Permit(const void*, size_t) {}
#endif

#ifdef TESSERA_SIMT_TSAN
inline constexpr bool kRacesChecked = true;
inline void Release(void* sync) { __tsan_release(sync); }
inline void Acquire(void* sync) { __tsan_acquire(sync); }
inline void Reads(const void* p, size_t bytes) { __tsan_read_range(const_cast<void*>(p), bytes); }
inline void Writes(void* p, size_t bytes) { __tsan_write_range(p, bytes); }
// While one lives, this thread's accesses are not looked at.
class Unwatched {
 public:
  Unwatched() {
    AnnotateIgnoreReadsBegin("", 0);
    AnnotateIgnoreWritesBegin("", 0);
  }
  ~Unwatched() {
    AnnotateIgnoreWritesEnd("", 0);
    AnnotateIgnoreReadsEnd("", 0);
  }
  Unwatched(const Unwatched&) = delete;
  Unwatched& operator=(const Unwatched&) = delete;
};
#else
inline constexpr bool kRacesChecked = false;
inline void Release(void*) {}
inline void Acquire(void*) {}
inline void Reads(const void*, size_t) {}
inline void Writes(void*, size_t) {}
class Unwatched {
 public:
  Unwatched() {}
  ~Unwatched() {}
  Unwatched(const Unwatched&) = delete;
  Unwatched& operator=(const Unwatched&) = delete;
};
#endif

}  // namespace tessera::simt

#endif  // TESSERA_KERNELS_SIMT_SANITIZER_H_
