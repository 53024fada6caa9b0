#include "kernels/simt/warp.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/simt/sanitizer.h"

namespace tessera::simt {
namespace {

// The meeting that `mask` is gathering for, or a free one: at most 32 are in use, since a lane is
// in one at a time. The one last used by the same lanes is preferred, for a meeting's address
// orders in ThreadSanitizer's eyes whoever met there before.
Meeting& Find(Block& block, int warp, uint32_t mask) {
  auto& meetings = block.meetings(warp);
  Meeting* free = nullptr;
  for (auto& m : meetings) {
    if (m->arrived != 0 && m->mask == mask) return *m;
    if (m->arrived == 0 && m->leaving == 0 && (free == nullptr || m->mask == mask)) free = m.get();
  }
  if (free == nullptr) free = meetings.emplace_back(std::make_unique<Meeting>()).get();
  return *free;
}

std::string Lanes(uint32_t mask) { return absl::StrCat("0x", absl::Hex(mask, absl::kZeroPad8)); }

template <class F>
void ForLanes(uint32_t mask, F&& f) {
  for (; mask != 0; mask &= mask - 1) f(std::countr_zero(mask));
}

}  // namespace

void Meet(uint32_t mask, const Call& call, Brought brought, Combine combine, Ordering ordering) {
  Unwatched unwatched;
  Block& block = Block::Running();
  const Thread& me = block.self();
  const uint32_t bit = 1u << me.lane;
  // The full mask stands for all the lanes there are in a last warp that is not full.
  if (mask == ~0u) mask = block.AllLanes(me.warp);
  if ((mask & bit) == 0)
    block.Fail(absl::StrCat(Describe(call), ": lane ", me.lane, " calls with the mask ",
                            Lanes(mask), ", which does not name it"));
  if ((mask & ~block.LiveLanes(me.warp)) != 0)
    block.Fail(absl::StrCat(Describe(call), ": the mask ", Lanes(mask), " names lanes ",
                            Lanes(mask & ~block.LiveLanes(me.warp)),
                            " that returned or do not exist"));
  Meeting& meeting = Find(block, me.warp, mask);
  if (meeting.arrived == 0) {
    meeting.mask = mask;
    meeting.call = call;
  } else if (!(meeting.call == call)) {
    block.Fail(absl::StrCat(Describe(call), " meets ", Describe(meeting.call), ", where lanes ",
                            Lanes(meeting.arrived), " of warp ", me.warp, " wait"));
  }
  LaneValue& mine = meeting.lanes[me.lane];
  std::copy_n(static_cast<const unsigned char*>(brought.value), brought.bytes, mine.data);
  mine.source = brought.source;
  if (ordering == Ordering::kMemory) Release(&meeting);
  meeting.arrived |= bit;
  if (meeting.arrived == mask) {
    if (combine != nullptr) combine(meeting.lanes, mask, brought.bytes);
    meeting.arrived = 0;
    meeting.leaving = mask;
    block.Wake(me.warp, mask);
  }
  block.Wait(call);
  std::copy_n(mine.data, brought.bytes, static_cast<unsigned char*>(brought.value));
  meeting.leaving &= ~bit;
  if (ordering == Ordering::kMemory) Acquire(&meeting);
}

void SyncWarp(uint32_t mask, std::source_location at) {
  Meet(mask, {"__syncwarp", at}, {}, nullptr, Ordering::kMemory);
}

void Shuffle(uint32_t mask, const Call& call, void* value, int bytes, int source) {
  Block& block = Block::Running();
  const uint32_t named = mask & block.AllLanes(block.self().warp);
  if ((named >> source & 1) == 0)
    block.Fail(absl::StrCat(Describe(call), ": lane ", block.self().lane, " reads lane ", source,
                            ", which the mask ", Lanes(mask), " does not name"));
  Meet(mask, call, {value, bytes, source}, [](LaneValue* lanes, uint32_t mask, int bytes) {
    unsigned char before[kWarpSize][sizeof(LaneValue::data)];
    ForLanes(mask, [&](int lane) { std::copy_n(lanes[lane].data, bytes, before[lane]); });
    ForLanes(mask,
             [&](int lane) { std::copy_n(before[lanes[lane].source], bytes, lanes[lane].data); });
  });
}

uint32_t Ballot(uint32_t mask, const Call& call, bool vote) {
  uint32_t value = vote ? 1 : 0;
  Meet(mask, call, {&value, sizeof value}, [](LaneValue* lanes, uint32_t mask, int) {
    uint32_t votes = 0;
    ForLanes(mask, [&](int lane) {
      if (lanes[lane].data[0] != 0) votes |= 1u << lane;
    });
    ForLanes(mask, [&](int lane) { std::memcpy(lanes[lane].data, &votes, sizeof votes); });
  });
  return value;
}

uint32_t MatchAny(uint32_t mask, const Call& call, void* value, int bytes) {
  // The answer may be wider than the value, so both travel in a buffer of 8 bytes.
  unsigned char buffer[8] = {};
  std::copy_n(static_cast<const unsigned char*>(value), bytes, buffer);
  Meet(mask, call, {buffer, sizeof buffer}, [](LaneValue* lanes, uint32_t mask, int) {
    uint32_t equal[kWarpSize] = {};
    ForLanes(mask, [&](int i) {
      ForLanes(mask, [&](int j) {
        if (std::memcmp(lanes[i].data, lanes[j].data, 8) == 0) equal[i] |= 1u << j;
      });
    });
    ForLanes(mask, [&](int lane) { std::memcpy(lanes[lane].data, &equal[lane], 4); });
  });
  uint32_t equal;
  std::memcpy(&equal, buffer, sizeof equal);
  return equal;
}

namespace {

template <class T, Reduction kReduction>
void Combined(LaneValue* lanes, uint32_t mask, int) {
  const auto value = [&](int lane) {
    T v;
    std::memcpy(&v, lanes[lane].data, sizeof v);
    return v;
  };
  T all = value(std::countr_zero(mask));
  ForLanes(mask & (mask - 1), [&](int lane) {
    const T v = value(lane);
    switch (kReduction) {
      case Reduction::kAdd:
        all = static_cast<T>(static_cast<unsigned>(all) + static_cast<unsigned>(v));
        break;
      case Reduction::kMin:
        all = std::min(all, v);
        break;
      case Reduction::kMax:
        all = std::max(all, v);
        break;
      case Reduction::kAnd:
        all &= v;
        break;
      case Reduction::kOr:
        all |= v;
        break;
      case Reduction::kXor:
        all ^= v;
        break;
    }
  });
  ForLanes(mask, [&](int lane) { std::memcpy(lanes[lane].data, &all, sizeof all); });
}

}  // namespace

template <class T>
T Reduce(uint32_t mask, const Call& call, T value, Reduction reduction) {
  constexpr Combine kCombines[] = {&Combined<T, Reduction::kAdd>, &Combined<T, Reduction::kMin>,
                                   &Combined<T, Reduction::kMax>, &Combined<T, Reduction::kAnd>,
                                   &Combined<T, Reduction::kOr>,  &Combined<T, Reduction::kXor>};
  Meet(mask, call, {&value, sizeof value}, kCombines[static_cast<int>(reduction)]);
  return value;
}
template int Reduce(uint32_t, const Call&, int, Reduction);
template unsigned Reduce(uint32_t, const Call&, unsigned, Reduction);

}  // namespace tessera::simt
