#include "kernels/simt/executor.h"

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <memory>
#include <new>
#include <vector>

#include "core/check.h"
#include "kernels/simt/fiber.h"

namespace tessera::simt {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kStackBytes = 256 << 10;
#else
constexpr size_t kStackBytes = 64 << 10;
#endif
constexpr int kNaNByte = 0xff;
constexpr uint32_t kAllLanes = ~0u;

std::string At(const char* what, const Where& where) {
  std::string file = where.file_name();
  const size_t kernels = file.rfind("kernels/");
  if (kernels != std::string::npos) file.erase(0, kernels);
  return std::string(what) + " (" + file + ":" + std::to_string(where.line()) + ")";
}

// Memory of a block with a rim of known bytes behind it.
class Guarded {
 public:
  explicit Guarded(size_t bytes) : bytes_(bytes) {
    data_ = static_cast<unsigned char*>(std::aligned_alloc(128, Padded()));
    if (data_ == nullptr) throw std::bad_alloc();
    std::memset(data_, kNaNByte, bytes);
    std::memset(data_ + bytes, kRim, Rim());
  }
  ~Guarded() { std::free(data_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  unsigned char* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  bool Intact() const {
    for (size_t i = 0; i < Rim(); ++i)
      if (data_[bytes_ + i] != kRim) return false;
    return true;
  }

 private:
  static constexpr unsigned char kRim = 0xa5;
  // AddressSanitizer guards the end by itself, to the byte.
#if defined(__SANITIZE_ADDRESS__)
  size_t Rim() const { return 0; }
  size_t Padded() const { return bytes_; }
#else
  size_t Rim() const { return Padded() - bytes_; }
  size_t Padded() const { return (bytes_ + 64 + 127) / 128 * 128; }
#endif
  size_t bytes_;
  unsigned char* data_;
};

struct Copy {
  void* to;
  const void* from;
  int bytes;
};

struct Lane {
  explicit Lane(size_t stack_bytes) : fiber(stack_bytes) {}
  Fiber fiber;
  Thread thread;
  bool done = false;
  const char* waits_for = nullptr;
  Where where;
  std::vector<Copy> copies;         // in flight
  std::vector<size_t> copy_groups;  // how many copies were enqueued at each commit
};

// A meeting of some threads: lanes of a warp, or the block. Generations follow one another; two
// can be seen at a time, since who is in one has left the one before the last.
struct Meeting {
  int arrived = 0;
  unsigned generation = 0;
  const char* what = nullptr;
  Where where;
  std::vector<int> waiting;
};
struct WarpMeeting : Meeting {
  uint32_t mask = 0, here = 0;
  alignas(64) unsigned char lanes[2][32 * kLaneBytes];
};
struct Warp {
  uint32_t live = 0;
  std::vector<std::unique_ptr<WarpMeeting>> meetings;
};
struct Barrier : Meeting {
  int votes = 0, result[2] = {0, 0};
};

class Executor {
 public:
  ThreadOrder order = ThreadOrder::kForward;
  uint64_t seed = 0;
  Block block;
  Lane* current = nullptr;

  void RunGrid(Dim3 grid, Dim3 block_dim, size_t shared_bytes, void (*body)(const void*),
               const void* closure);
  int MeetBlock(bool vote, const char* what, const Where& where);
  const unsigned char* MeetWarp(uint32_t mask, const void* in, int bytes, CombineLanes combine,
                                const char* what, const Where& where);
  void* Shared(const void* key, size_t bytes);

 private:
  static void Entry();
  void RunBlock();
  [[noreturn]] void EndThread();
  void Wait(Meeting& meeting, const char* what, const Where& where);
  void Release(Meeting& meeting);
  Lane* NextReady();
  void CheckSame(const Meeting& meeting, const char* what, const Where& where) const;
  std::string Deadlock() const;
  std::string BlockName() const;
  uint64_t Random() {  // xorshift64*
    random_ ^= random_ >> 12;
    random_ ^= random_ << 25;
    random_ ^= random_ >> 27;
    return random_ * 0x2545f4914f6cdd1dull;
  }

  Fiber outside_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  std::vector<Warp> warps_;
  Barrier barrier_;
  std::vector<int> ready_;  // from first_ready_ on
  size_t first_ready_ = 0;
  uint64_t random_ = 1;
  int threads_ = 0, live_ = 0;
  void (*body_)(const void*) = nullptr;
  const void* closure_ = nullptr;
  std::exception_ptr error_;
  std::vector<std::pair<const void*, std::unique_ptr<Guarded>>> shared_;
};

Executor& Mine() {
  static thread_local Executor executor;
  return executor;
}

std::string Executor::BlockName() const {
  return "block (" + std::to_string(block.index.x) + "," + std::to_string(block.index.y) + "," +
         std::to_string(block.index.z) + ")";
}

Lane* Executor::NextReady() {
  if (first_ready_ == ready_.size()) return nullptr;
  if (order == ThreadOrder::kRandom)
    std::swap(ready_[first_ready_],
              ready_[first_ready_ + Random() % (ready_.size() - first_ready_)]);
  Lane* next = lanes_[static_cast<size_t>(ready_[first_ready_++])].get();
  if (first_ready_ == ready_.size() || first_ready_ > 4096) {
    ready_.erase(ready_.begin(), ready_.begin() + static_cast<ptrdiff_t>(first_ready_));
    first_ready_ = 0;
  }
  return next;
}

void Executor::Wait(Meeting& meeting, const char* what, const Where& where) {
  Lane* me = current;
  const unsigned generation = meeting.generation;
  meeting.waiting.push_back(me->thread.linear);
  me->waits_for = what;
  me->where = where;
  while (meeting.generation == generation) {
    Lane* next = NextReady();
    current = next;
    (next == nullptr ? outside_ : next->fiber).SwitchFrom(me->fiber);
  }
  me->waits_for = nullptr;
}

// All have come: they go on, the last to come among them, or it would always be the first.
void Executor::Release(Meeting& meeting) {
  Lane* me = current;
  meeting.arrived = 0;
  ++meeting.generation;
  if (order != ThreadOrder::kForward) meeting.waiting.push_back(me->thread.linear);
  std::sort(meeting.waiting.begin(), meeting.waiting.end());
  if (order == ThreadOrder::kReverse)
    ready_.insert(ready_.end(), meeting.waiting.rbegin(), meeting.waiting.rend());
  else
    ready_.insert(ready_.end(), meeting.waiting.begin(), meeting.waiting.end());
  meeting.waiting.clear();
  if (order == ThreadOrder::kForward) return;
  current = NextReady();
  if (current != me) current->fiber.SwitchFrom(me->fiber);
}

void Executor::CheckSame(const Meeting& meeting, const char* what, const Where& where) const {
  if (meeting.what == what && meeting.where.line() == where.line()) return;
  throw Error("divergent threads in " + BlockName() + ": " + At(what, where) + " meets " +
              At(meeting.what, meeting.where));
}

int Executor::MeetBlock(bool vote, const char* what, const Where& where) {
  Barrier& b = barrier_;
  if (live_ < threads_)
    throw Error(At(what, where) + " in " + BlockName() + ": " + std::to_string(threads_ - live_) +
                " of its " + std::to_string(threads_) + " threads have already returned");
  if (b.arrived == 0) {
    b.what = what;
    b.where = where;
    b.votes = 0;
  } else {
    CheckSame(b, what, where);
  }
  const unsigned generation = b.generation;
  b.votes += vote ? 1 : 0;
  if (++b.arrived < threads_) {
    Wait(b, what, where);
  } else {
    b.result[generation & 1] = b.votes;
    Release(b);
  }
  return b.result[generation & 1];
}

const unsigned char* Executor::MeetWarp(uint32_t mask, const void* in, int bytes,
                                        CombineLanes combine, const char* what,
                                        const Where& where) {
  Lane* me = current;
  const int first = me->thread.warp() * 32;
  Warp& warp = warps_[static_cast<size_t>(me->thread.warp())];
  const uint32_t present = threads_ - first >= 32 ? kAllLanes : (1u << (threads_ - first)) - 1;
  if (mask == kAllLanes) mask = present;
  const uint32_t bit = 1u << me->thread.lane();
  if ((mask & bit) == 0)
    throw Error(At(what, where) + ": lane " + std::to_string(me->thread.lane()) +
                " is not in its own mask");
  if ((mask & ~warp.live) != 0)
    throw Error(At(what, where) + ": the mask names lanes that have returned or do not exist");
  WarpMeeting* m = nullptr;
  for (auto& x : warp.meetings)
    if (x->mask == mask) m = x.get();
  if (m == nullptr) {
    m = warp.meetings.emplace_back(std::make_unique<WarpMeeting>()).get();
    m->mask = mask;
  }
  if (m->here == 0) {
    m->what = what;
    m->where = where;
  } else {
    CheckSame(*m, what, where);
  }
  unsigned char* lanes = m->lanes[m->generation & 1];
  if (bytes > 0)
    std::memcpy(lanes + me->thread.lane() * kLaneBytes, in, static_cast<size_t>(bytes));
  m->here |= bit;
  if (m->here != mask) {
    Wait(*m, what, where);
  } else {
    if (combine != nullptr) combine(lanes, mask);
    m->here = 0;
    Release(*m);
  }
  return lanes;
}

void* Executor::Shared(const void* key, size_t bytes) {
  for (auto& [k, memory] : shared_)
    if (k == key) return memory->data();
  return shared_.emplace_back(key, std::make_unique<Guarded>(bytes)).second->data();
}

void Executor::Entry() {
  Executor& e = Mine();
  FiberEntered(e.current->fiber, e.outside_);
  try {
    e.body_(e.closure_);
    CopyAsyncWait(0);  // the hardware, too, completes them when a thread ends
  } catch (...) {
    if (!e.error_) e.error_ = std::current_exception();
  }
  e.EndThread();
}

void Executor::EndThread() {
  Lane* me = current;
  me->done = true;
  --live_;
  warps_[static_cast<size_t>(me->thread.warp())].live &= ~(1u << me->thread.lane());
  if (!error_ && barrier_.arrived > 0)
    error_ = std::make_exception_ptr(Error("thread " + std::to_string(me->thread.linear) + " of " +
                                           BlockName() + " returned while " +
                                           std::to_string(barrier_.arrived) + " threads wait at " +
                                           At(barrier_.what, barrier_.where)));
  current = error_ ? nullptr : NextReady();
  (current == nullptr ? outside_ : current->fiber).SwitchFrom(me->fiber, true);
  std::abort();  // nobody comes back to a thread that has ended
}

std::string Executor::Deadlock() const {
  std::string text = "deadlock in " + BlockName() + ":";
  std::vector<std::string> seen;
  for (int i = 0; i < threads_; ++i) {
    const Lane& lane = *lanes_[static_cast<size_t>(i)];
    if (lane.done) continue;
    const std::string at = At(lane.waits_for, lane.where);
    if (std::find(seen.begin(), seen.end(), at) != seen.end()) continue;
    seen.push_back(at);
    int count = 0;
    for (int j = i; j < threads_; ++j) {
      const Lane& other = *lanes_[static_cast<size_t>(j)];
      count += !other.done && At(other.waits_for, other.where) == at ? 1 : 0;
    }
    text += " " + std::to_string(count) + " threads (first: " + std::to_string(i) + ") wait at " +
            at + ";";
  }
  text.pop_back();
  return text;
}

void Executor::RunBlock() {
  for (Warp& w : warps_) {
    w.live = 0;
    for (auto& m : w.meetings) {
      m->here = 0;
      m->waiting.clear();
    }
  }
  barrier_.arrived = 0;
  barrier_.waiting.clear();
  ready_.clear();
  first_ready_ = 0;
  live_ = threads_;
  for (int i = 0; i < threads_; ++i) {
    Lane& lane = *lanes_[static_cast<size_t>(i)];
    const auto n = static_cast<unsigned>(i);
    const Dim3& d = block.block_dim;
    lane.thread = {{n % d.x, n / d.x % d.y, n / d.x / d.y}, i};
    lane.done = false;
    lane.waits_for = nullptr;
    lane.copies.clear();
    lane.copy_groups.clear();
    lane.fiber.Start(&Executor::Entry);
    warps_[static_cast<size_t>(i / 32)].live |= 1u << (i % 32);
    ready_.push_back(order == ThreadOrder::kReverse ? threads_ - 1 - i : i);
  }
  current = NextReady();
  current->fiber.SwitchFrom(outside_);
  current = nullptr;
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  if (live_ > 0) throw Error(Deadlock());
}

void Executor::RunGrid(Dim3 grid, Dim3 block_dim, size_t shared_bytes, void (*body)(const void*),
                       const void* closure) {
  const uint64_t threads = uint64_t{block_dim.x} * block_dim.y * block_dim.z;
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  // The limits of the hardware.
  if (threads == 0 || threads > kMaxThreads || block_dim.z > 64)
    throw Error("a launch of " + std::to_string(threads) +
                " threads a block; 1 to 1024 are possible");
  if (blocks == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    throw Error("a launch of (" + std::to_string(grid.x) + "," + std::to_string(grid.y) + "," +
                std::to_string(grid.z) + ") blocks; x is limited to 2^31 - 1, y and z to 65535");
  if (shared_bytes > kMaxSharedBytes)
    throw Error("a launch with " + std::to_string(shared_bytes) +
                " bytes of shared memory; 232448 are possible");
  TESSERA_CHECK(current == nullptr, "a kernel launched from a kernel");
  threads_ = static_cast<int>(threads);
  body_ = body;
  closure_ = closure;
  random_ = seed * 0x9e3779b97f4a7c15ull + 0x1234567;
  while (lanes_.size() < threads) lanes_.push_back(std::make_unique<Lane>(kStackBytes));
  warps_.resize((threads + 31) / 32);
  block.block_dim = block_dim;
  block.grid_dim = grid;
  for (uint64_t i = 0; i < blocks; ++i) {
    const uint64_t b = order == ThreadOrder::kReverse ? blocks - 1 - i : i;
    block.index = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                   static_cast<unsigned>(b / grid.x / grid.y)};
    struct Clear {  // also where the block throws
      Executor* e;
      ~Clear() {
        e->shared_.clear();
        e->current = nullptr;
      }
    } clear{this};
    block.dynamic_shared =
        shared_bytes == 0 ? nullptr : static_cast<unsigned char*>(Shared(this, shared_bytes));
    RunBlock();
    for (auto& [key, memory] : shared_)
      if (!memory->Intact())
        throw Error("a write past the end of " +
                    std::string(key == this ? "dynamic shared memory" : "a shared variable") +
                    " of " + std::to_string(memory->bytes()) + " bytes in " + BlockName());
  }
}

}  // namespace

void SetThreadOrder(ThreadOrder order, uint64_t seed) {
  Mine().order = order;
  Mine().seed = seed;
}

const Thread& ThisThread() { return Mine().current->thread; }
const Block& ThisBlock() { return Mine().block; }

void RunGrid(Dim3 grid, Dim3 block, size_t dynamic_shared_bytes, void (*body)(const void*),
             const void* closure) {
  Mine().RunGrid(grid, block, dynamic_shared_bytes, body, closure);
}

int BlockBarrier(bool vote, const char* what, const Where& where) {
  return Mine().MeetBlock(vote, what, where);
}

const unsigned char* WarpCollective(uint32_t mask, const void* in, int bytes, CombineLanes combine,
                                    const char* what, const Where& where) {
  return Mine().MeetWarp(mask, in, bytes, combine, what, where);
}

void* SharedVariable(const void* key, size_t bytes) { return Mine().Shared(key, bytes); }

void CopyAsync(void* shared, const void* global, int bytes, const Where& where) {
  if ((reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global)) &
      static_cast<uintptr_t>(bytes - 1))
    throw Error(At("cp.async", where) + ": an address is not a multiple of " +
                std::to_string(bytes));
  std::memset(shared, kNaNByte, static_cast<size_t>(bytes));
  Mine().current->copies.push_back({shared, global, bytes});
}

void CopyAsyncCommit() {
  Lane& me = *Mine().current;
  me.copy_groups.push_back(me.copies.size());
}

void CopyAsyncWait(int groups_left) {
  Lane& me = *Mine().current;
  size_t count = me.copies.size();  // wait_all counts what was never committed, too
  if (groups_left > 0) {
    const auto left = static_cast<size_t>(groups_left);
    if (me.copy_groups.size() <= left) return;
    count = me.copy_groups[me.copy_groups.size() - 1 - left];
  }
  for (size_t i = 0; i < count; ++i)
    std::memcpy(me.copies[i].to, me.copies[i].from, static_cast<size_t>(me.copies[i].bytes));
  me.copies.erase(me.copies.begin(), me.copies.begin() + static_cast<ptrdiff_t>(count));
  std::vector<size_t> groups;
  for (const size_t g : me.copy_groups)
    if (g > count) groups.push_back(g - count);
  me.copy_groups = groups;
}

}  // namespace tessera::simt
