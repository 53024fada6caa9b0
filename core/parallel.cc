#include "core/parallel.h"

#include <cstdlib>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/check.h"
#include "core/engine.h"
#include "core/limits.h"
#include "core/pool.h"

namespace tessera {
namespace {

struct Scratch {
  void* data = nullptr;
  int64_t bytes = 0;
  ~Scratch() { std::free(data); }
};
thread_local Scratch t_scratch[4];

}  // namespace

void SetThreads(int threads) { Engine::Current().SetThreads(threads); }
int Threads() { return Engine::Current().pool().threads(); }
std::string MissingThreads() { return Engine::Current().pool().refusal(); }
int ThreadIndex() { return internal::Pool::ThreadIndex(); }

void* ThreadScratch(int64_t bytes, int slot) {
  TESSERA_CHECK(slot >= 0 && slot < 4, "scratch slot %d", slot);
  Scratch& s = t_scratch[slot];
  if (s.bytes < bytes) {
    std::free(s.data);
    s.bytes = (bytes + 4095) / 4096 * 4096;
    s.data = std::aligned_alloc(64, static_cast<size_t>(s.bytes));
    if (s.data == nullptr) {
      const int64_t refused = std::exchange(s.bytes, 0);
      throw OutOfMemory(absl::StrFormat("no memory for %d bytes of a thread's scratch", refused));
    }
  }
  return s.data;
}

namespace internal {

void ParallelFor(int64_t chunks, void (*body)(void*, int64_t), void* closure) {
  const auto in_place = [&] {
    for (int64_t c = 0; c < chunks; ++c) body(closure, c);
  };
  if (Pool::Inside() || chunks <= 1) return in_place();
  Pool& pool = Engine::Current().pool();
  if (pool.threads() == 1 || !pool.TryRun(chunks, body, closure)) in_place();
}

}  // namespace internal
}  // namespace tessera
