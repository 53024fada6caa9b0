#include "kernels/simt/block.h"

#include <algorithm>
#include <bit>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/simt/hopper.h"
#include "kernels/simt/launch.h"
#include "kernels/simt/sanitizer.h"
#include "kernels/simt/warp.h"

namespace tessera::simt {

namespace device {
constinit thread_local uint3 threadIdx = {}, blockIdx = {};
constinit thread_local dim3 blockDim = {}, gridDim = {};
}  // namespace device
using device::blockDim, device::blockIdx, device::gridDim, device::threadIdx;

namespace {

// Frames are larger where a sanitizer puts red zones between variables.
#if defined(TESSERA_SIMT_ASAN) || defined(TESSERA_SIMT_TSAN)
constexpr size_t kStackBytes = 256 * 1024;
#else
constexpr size_t kStackBytes = 64 * 1024;
#endif

struct ChosenOrder {
  Order order = Order::kForward;
  uint64_t seed = 0;
};
constinit thread_local ChosenOrder chosen = {};
constinit thread_local Block* running = nullptr;

}  // namespace

bool ReportsRaces() { return kRacesChecked; }

void SetOrder(Order order, uint64_t seed) { chosen = {order, seed}; }

void RunGrid(dim3 grid, dim3 block, int64_t shared_bytes, void (*kernel)(void*), void* arguments) {
  if (running != nullptr) throw Error("a kernel launches a kernel");
  thread_local Block runner;
  runner.Run(grid, block, shared_bytes, kernel, arguments);
}

Thread::Thread(size_t stack_bytes, void (*entry)()) : fiber(stack_bytes, entry) {}
Thread::~Thread() = default;

Block::Block() = default;
Block::~Block() = default;

void* DynamicShared() {
  Unwatched unwatched;
  return Block::Running().shared().dynamic();
}
void* SharedVariable(const void* key, const char* name, size_t bytes, size_t alignment) {
  Unwatched unwatched;
  return Block::Running().shared().Variable(key, name, bytes, alignment);
}
int Lane() {
  Unwatched unwatched;
  return Block::Running().self().lane;
}

[[gnu::no_sanitize_thread]] Block& Block::Running() {
  if (running == nullptr) throw Error("a device function is called outside a kernel");
  return *running;
}

void Block::Run(dim3 grid, dim3 block, int64_t shared_bytes, void (*kernel)(void*),
                void* arguments) {
  const uint64_t count = uint64_t{block.x} * block.y * block.z;
  if (count == 0 || count > kMostThreads || block.z > 64)
    throw Error(absl::StrCat("a block of ", block.x, " x ", block.y, " x ", block.z, " threads"));
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 ||
      grid.z > 65535)
    throw Error(absl::StrCat("a grid of ", grid.x, " x ", grid.y, " x ", grid.z, " blocks"));
  Fiber main;
  main_ = &main;
  kernel_ = kernel;
  arguments_ = arguments;
  grid_ = grid;
  size_ = block;
  shared_bytes_ = shared_bytes;
  count_ = static_cast<int>(count);
  order_ = chosen.order;
  random_ = (chosen.seed + 1) * 0x9e3779b97f4a7c15u;
  while (std::ssize(threads_) < count_)
    threads_.push_back(std::make_unique<Thread>(kStackBytes, &Block::FiberMain));

  struct Ends {
    ~Ends() { running = nullptr; }
  } ends;
  running = this;
  blockDim = block;
  gridDim = grid;
  const uint64_t blocks = FirstBlockAlone() ? 1 : uint64_t{grid.x} * grid.y * grid.z;
  const uint64_t first = order_ >= Order::kRandom ? Random() % blocks : 0;
  for (uint64_t i = 0; i < blocks; ++i)
    RunBlock(order_ == Order::kReverse ? blocks - 1 - i : (first + i) % blocks);
}

void Block::RunBlock(uint64_t block_index) {
  blockIdx = {static_cast<unsigned>(block_index % grid_.x),
              static_cast<unsigned>(block_index / grid_.x % grid_.y),
              static_cast<unsigned>(block_index / grid_.x / grid_.y)};
  Unwatched unwatched;
  Begin();
  Release(&begin_sync_);
  SwitchTo(Next());
  if (live_ > 0 && !error_) error_ = std::make_exception_ptr(Error(Deadlock()));
  if (error_) Unwind();
  Acquire(&end_sync_);
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  CheckShared(nullptr);
  CheckProducts();
}

void Block::CheckProducts() const {
  for (int warp = 0; warp * kWarpSize < count_; ++warp)
    if (const int of_first = products_[warp / 4 * 4]; products_[warp] != of_first)
      throw Error(absl::StrCat(BlockName(), ": warps of a warpgroup issued ", of_first, " and ",
                               products_[warp], " products, the last in ",
                               Describe(product_call_)));
}

void Block::Begin() {
  shared_.Begin(shared_bytes_);
  mbarriers_.clear();
  std::fill(std::begin(products_), std::end(products_), 0);
  live_ = count_;
  arrived_ = ready_first_ = ready_count_ = 0;
  for (int warp = 0; warp * kWarpSize < count_; ++warp) {
    live_lanes_[warp] = AllLanes(warp);
    ready_lanes_[warp] = 0;
    // Shuffled as it grows (Fisher and Yates).
    const uint32_t place = Random() % static_cast<uint32_t>(warp + 1);
    ranking_[warp] = ranking_[place];
    ranking_[place] = warp;
    for (auto& meeting : meetings_[warp]) meeting->arrived = meeting->leaving = 0;
  }
  for (int i = 0; i < count_; ++i) {
    Thread& t = *threads_[i];
    const unsigned n = static_cast<unsigned>(i);
    t.index = {n % size_.x, n / size_.x % size_.y, n / size_.x / size_.y};
    t.linear = i;
    t.warp = i / kWarpSize;
    t.lane = i % kWarpSize;
    t.state = Thread::State::kNew;
    t.waits_in = nullptr;
    t.copies.clear();
    t.open_group = 0;
    t.products.clear();
    t.fenced.clear();
    t.open_products = 0;
    Push(order_ == Order::kReverse ? count_ - 1 - i : i);
  }
}

// The threads that began and have not returned are resumed once more, to throw Unwound.
void Block::Unwind() {
  unwinding_ = true;
  for (int i = 0; i < count_; ++i)
    if (threads_[i]->state == Thread::State::kStarted) SwitchTo(threads_[i].get());
  unwinding_ = false;
}

// A fiber outlives its thread: it waits here for the same thread of a later block.
[[gnu::no_sanitize_thread]] void Block::FiberMain() {
  for (;;) {
    Thread* next = running->RunThread();
    running->SwitchTo(next);
  }
}

Thread* Block::RunThread() {
  void (*kernel)(void*);
  void* arguments;
  {
    Unwatched unwatched;
    kernel = kernel_;
    arguments = arguments_;
    self_->state = Thread::State::kStarted;
    Acquire(&begin_sync_);
  }
  std::exception_ptr error;
  try {
    kernel(arguments);
    FinishCopies();
  } catch (const Unwound&) {
  } catch (...) {
    error = std::current_exception();
  }
  Unwatched unwatched;
  Release(&end_sync_);
  Thread& me = *self_;
  me.state = Thread::State::kDone;
  --live_;
  live_lanes_[me.warp] &= ~(1u << me.lane);
  if (unwinding_) return nullptr;
  if (error == nullptr && arrived_ > 0)
    error = std::make_exception_ptr(
        Error(absl::StrCat(BlockName(), ": thread ", me.linear, " returned while ", arrived_,
                           " of ", count_, " threads wait in ", Describe(barrier_call_))));
  if (error != nullptr) {
    error_ = error;
    return nullptr;
  }
  return Next();
}

int Block::Barrier(bool vote, const Call& call) {
  Unwatched unwatched;
  if (arrived_ == 0) {
    barrier_call_ = call;
    votes_ = 0;
  } else if (!(barrier_call_ == call)) {
    Fail(absl::StrCat(Describe(call), " meets ", Describe(barrier_call_), ", where ", arrived_,
                      " of ", count_, " threads wait"));
  }
  if (live_ < count_)
    Fail(absl::StrCat(Describe(call), " after ", count_ - live_, " of ", count_,
                      " threads returned"));
  char* sync = &barrier_sync_[barriers_ % 2];
  Release(sync);
  votes_ += vote ? 1 : 0;
  if (++arrived_ == count_) {
    CheckShared(&call);
    arrived_ = 0;
    result_ = votes_;
    ++barriers_;
    const int warps = (count_ + kWarpSize - 1) / kWarpSize;
    for (int i = 0; i < warps; ++i) {
      const int warp = order_ == Order::kReverse ? warps - 1 - i : i;
      Wake(warp, AllLanes(warp));
    }
  }
  Wait(call);
  Acquire(sync);
  return result_;
}

void Block::Wait(const Call& call) {
  Thread& me = *self_;
  me.waits_in = &call;
  Thread* next = Next();
  if (next != &me) SwitchTo(next);
  me.waits_in = nullptr;
  if (unwinding_) throw Unwound();
}

void Block::Wake(int warp, uint32_t lanes) {
  for (int i = 0; i < kWarpSize; ++i) {
    const int lane = order_ == Order::kReverse ? kWarpSize - 1 - i : i;
    if ((lanes >> lane & 1) != 0) Push(warp * kWarpSize + lane);
  }
}

void Block::Push(int thread) {
  if (order_ == Order::kWarps)
    ready_lanes_[thread / kWarpSize] |= 1u << thread % kWarpSize;
  else
    ready_[static_cast<unsigned>(ready_first_ + ready_count_) % kMostThreads] =
        static_cast<uint16_t>(thread);
  ++ready_count_;
}

Thread* Block::Next() {
  if (ready_count_ == 0) return nullptr;
  --ready_count_;
  if (order_ == Order::kWarps) {
    const int* warp = ranking_;
    while (ready_lanes_[*warp] == 0) ++warp;
    uint32_t& lanes = ready_lanes_[*warp];
    const int lane = std::countr_zero(lanes);
    lanes &= lanes - 1;
    return threads_[*warp * kWarpSize + lane].get();
  }
  const int first = ready_first_;
  ready_first_ = (first + 1) % kMostThreads;
  if (order_ == Order::kRandom) {
    const uint32_t chosen = Random() % static_cast<uint32_t>(ready_count_ + 1);
    std::swap(ready_[first], ready_[(static_cast<uint32_t>(first) + chosen) % kMostThreads]);
  }
  return threads_[ready_[first]].get();
}

[[gnu::no_sanitize_thread]] void Block::SwitchTo(Thread* next) {
  Fiber* from = self_ != nullptr ? &self_->fiber : main_;
  self_ = next;
  if (next != nullptr) threadIdx = next->index;
  Fiber::Switch(*from, next != nullptr ? next->fiber : *main_);
}

uint32_t Block::Random() {
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  return static_cast<uint32_t>(random_ >> 32);
}

}  // namespace tessera::simt
