#include "core/engine.h"

#include "core/check.h"
#include "core/limits.h"
#include "core/pool.h"

namespace tessera {
namespace {

thread_local Engine* t_engine = nullptr;

int Wanted(int threads) { return threads == 0 ? UsableProcessors() : threads; }

}  // namespace

Engine::Engine(int threads) : wanted_(threads) {
  TESSERA_CHECK(threads >= 0, "an engine of %d threads", threads);
}
Engine::~Engine() = default;

Engine& Engine::Current() {
  static Engine of_the_process;
  return t_engine == nullptr ? of_the_process : *t_engine;
}

Engine::Use::Use(Engine& engine) : before_(t_engine) {
  TESSERA_CHECK(!internal::Pool::Inside(), "an engine is chosen inside a ParallelFor");
  t_engine = &engine;
}
Engine::Use::~Use() { t_engine = before_; }

void Engine::Enter(Engine* engine) { t_engine = engine; }

// Made on first use, so that a program that wants one thread never starts another.
internal::Pool& Engine::pool() {
  if (internal::Pool* const made = pool_.load(std::memory_order_acquire)) return *made;
  const std::lock_guard<std::mutex> lock(making_);
  if (owned_ == nullptr) owned_ = std::make_unique<internal::Pool>(Wanted(wanted_), this);
  pool_.store(owned_.get(), std::memory_order_release);
  return *owned_;
}

void Engine::SetThreads(int threads) {
  TESSERA_CHECK(!internal::Pool::Inside() && threads >= 0,
                "SetThreads(%d) inside a ParallelFor or negative", threads);
  const std::lock_guard<std::mutex> lock(making_);
  wanted_ = threads;
  if (owned_ != nullptr && owned_->threads() == Wanted(threads)) return;
  pool_.store(nullptr, std::memory_order_release);
  owned_ = std::make_unique<internal::Pool>(Wanted(threads), this);
  pool_.store(owned_.get(), std::memory_order_release);
}

}  // namespace tessera
