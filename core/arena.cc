#include "core/arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/check.h"
#include "core/limits.h"
#include "core/sizes.h"

namespace tessera {
namespace {
constexpr int64_t kAlign = 64;
constexpr int64_t kGuard = 64;
constexpr unsigned char kGuardByte = 0xA5;
}  // namespace

Arena::Arena(Backing backing, int64_t capacity_bytes)
    : Arena(backing == Backing::kMeta ? Memory{} : HostMemory(capacity_bytes), backing) {}

Arena::Arena(Memory memory, Backing backing) : backing_(backing), memory_(std::move(memory)) {}

Arena::Memory Arena::HostMemory(int64_t bytes) {
  const int64_t size = std::max<int64_t>(bytes, kAlign);
  void* const p = mmap(nullptr, static_cast<size_t>(size), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED)
    throw OutOfMemory(absl::StrFormat("the system gives no %.2f GiB of memory: %s %.2f",
                                      size * 0x1p-30, UsableMemory().by,
                                      UsableMemory().free_bytes * 0x1p-30));
  madvise(p, static_cast<size_t>(size), MADV_HUGEPAGE);
  return {p, size, [p, size] { munmap(p, static_cast<size_t>(size)); }};
}

Arena::~Arena() {
  if (memory_.release) memory_.release();
}

int64_t Arena::Padded(int64_t bytes) const {
  const int64_t aligned = (std::max<int64_t>(bytes, 1) + kAlign - 1) / kAlign * kAlign;
  return backing_ == Backing::kPoisoned ? aligned + 2 * kGuard : aligned;
}

int64_t Arena::Allocate(int64_t bytes) {
  const int64_t want = Padded(bytes);
  auto best = holes_.end();
  for (auto it = holes_.begin(); it != holes_.end(); ++it)
    if (it->second >= want && (best == holes_.end() || it->second < best->second)) best = it;
  int64_t offset;
  if (best != holes_.end()) {
    offset = best->first;
    const int64_t left = best->second - want;
    holes_.erase(best);
    if (left > 0) holes_[offset + want] = left;
  } else {
    offset = end_;
    if (want > kMaxArenaBytes - end_)
      throw SizeError(
          "the tensors of this model and pass are together larger than any memory; use fewer "
          "layers, or a smaller batch, sequence or width");
    end_ += want;
    TESSERA_CHECK(backing_ == Backing::kMeta || end_ <= memory_.bytes,
                  "arena of %ld bytes cannot hold %ld more", memory_.bytes, bytes);
    peak_ = std::max(peak_, end_);
  }
  live_ += want;
  if (backing_ != Backing::kPoisoned) return offset;
  std::memset(base() + offset, kGuardByte, kGuard);
  std::memset(base() + offset + kGuard, 0xFF, static_cast<size_t>(want - 2 * kGuard));  // NaN
  std::memset(base() + offset + kGuard + bytes, kGuardByte,
              static_cast<size_t>(want - kGuard - bytes));
  return offset + kGuard;
}

void Arena::Free(int64_t offset, int64_t bytes) {
  const int64_t size = Padded(bytes);
  if (backing_ == Backing::kPoisoned) {
    const auto* block = reinterpret_cast<unsigned char*>(base() + offset);
    for (int64_t i = -kGuard; i < 0; ++i)
      TESSERA_CHECK(block[i] == kGuardByte, "write %ld bytes before a block of %ld", -i, bytes);
    for (int64_t i = bytes; i < size - kGuard; ++i)
      TESSERA_CHECK(block[i] == kGuardByte, "write at byte %ld of a block of %ld", i, bytes);
    offset -= kGuard;
  }
  live_ -= size;
  auto [it, inserted] = holes_.emplace(offset, size);
  TESSERA_CHECK(inserted, "block at %ld freed twice", offset);
  if (auto next = std::next(it); next != holes_.end() && it->first + it->second == next->first) {
    it->second += next->second;
    holes_.erase(next);
  }
  if (it != holes_.begin()) {
    if (auto before = std::prev(it); before->first + before->second == it->first) {
      before->second += it->second;
      holes_.erase(it);
      it = before;
    }
  }
  if (it->first + it->second == end_) {
    end_ = it->first;
    holes_.erase(it);
  }
}

}  // namespace tessera
