#ifndef TESSERA_CORE_PARALLEL_H_
#define TESSERA_CORE_PARALLEL_H_

#include <cstdint>
#include <type_traits>

// Work on several threads with one promise: the result does not depend on how many there are. A
// kernel cuts its work into chunks by shape alone, each chunk writes its own output, and whatever
// is summed over chunks is summed in chunk order afterwards. Which thread takes which chunk is
// free, so a slow core delays nobody.

namespace tessera {

// Threads that the calling thread's engine (core/engine.h) uses from now on, the caller included;
// at least 1, and fewer than asked for if the system starts no more (core/limits.h). 0 means one a
// processor that this process may use. Not to be called inside a ParallelFor, nor while another
// thread with the same engine is in one.
void SetThreads(int threads);
int Threads();

// Which of the threads runs the caller: 0 .. Threads()-1, for per-thread scratch.
int ThreadIndex();

// Scratch memory of the calling thread, 64-byte aligned, of at least `bytes`, contents undefined.
// Stays valid until the same thread asks for more; one kernel uses it at a time. `slot` (0..3)
// tells apart buffers that live together.
void* ThreadScratch(int64_t bytes, int slot = 0);

namespace internal {
void ParallelFor(int64_t chunks, void (*body)(void*, int64_t), void* closure);
}

// body(chunk) for every chunk in [0, chunks). Returns when all are done. A ParallelFor inside
// another, or beside one that another thread with the same engine is in, runs on the calling thread
// alone. What a body throws, the caller gets; chunks that were not begun by then may be left out.
template <class Body>
void ParallelFor(int64_t chunks, Body&& body) {
  using Plain = std::remove_reference_t<Body>;
  if (chunks == 1) return body(int64_t{0});
  internal::ParallelFor(
      chunks, [](void* b, int64_t chunk) { (*static_cast<Plain*>(b))(chunk); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

// body(begin, end) over [0, n) in pieces of `grain`.
template <class Body>
void ParallelRanges(int64_t n, int64_t grain, Body&& body) {
  ParallelFor((n + grain - 1) / grain, [&](int64_t chunk) {
    const int64_t begin = chunk * grain;
    body(begin, begin + grain < n ? begin + grain : n);
  });
}

}  // namespace tessera

#endif  // TESSERA_CORE_PARALLEL_H_
