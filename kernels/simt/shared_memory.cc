#include "kernels/simt/shared_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "core/check.h"
#include "kernels/simt/error.h"
#include "kernels/simt/sanitizer.h"

namespace tessera::simt {
namespace {

constexpr uint64_t kPoison = 0xfffefffefffefffe;  // NaN to float, bf16 and half; no small integer
constexpr size_t kCapacity = 512 * 1024;
constexpr int64_t kMostBytes = 227 * 1024;       // of a block, as compute capability 9.0 has it
constexpr int64_t kMostStaticBytes = 48 * 1024;  // of its variables of fixed size

// Through `volatile`, lest the compiler call memset, which ThreadSanitizer would watch.
void Poison(unsigned char* p, size_t bytes) {
  auto* words = reinterpret_cast<volatile uint64_t*>(p);
  for (size_t i = 0; i < bytes / 8; ++i) words[i] = kPoison;
}

constexpr size_t RoundUp(size_t n, size_t to) { return (n + to - 1) / to * to; }

}  // namespace

SharedMemory::SharedMemory() : page_(static_cast<size_t>(sysconf(_SC_PAGESIZE))) {
  void* mapping = mmap(nullptr, kCapacity + 2 * page_, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  TESSERA_CHECK(mapping != MAP_FAILED, "no %zu bytes of shared memory: %s", kCapacity,
                std::strerror(errno));
  base_ = static_cast<unsigned char*>(mapping) + page_;
  mprotect(base_ - page_, page_, PROT_NONE);
  mprotect(base_ + kCapacity, page_, PROT_NONE);
  placed_.reserve(64);
}

SharedMemory::~SharedMemory() {
  Permit(base_, kCapacity);
  munmap(base_ - page_, kCapacity + 2 * page_);
}

void SharedMemory::Begin(int64_t dynamic_bytes) {
  if (dynamic_bytes > kMostBytes)
    throw Error(absl::StrCat(dynamic_bytes, " bytes of dynamic shared memory; a block has at most ",
                             kMostBytes));
  Permit(base_, kCapacity);
  placed_.clear();
  Poison(base_, kEndZone);
  Forbid(base_, kEndZone);
  Place({nullptr, "dynamic shared memory", kEndZone, static_cast<size_t>(dynamic_bytes), kEndZone});
}

void SharedMemory::Place(Placed v) {
  // The bytes that round the variable up to whole words belong to its zone, poisoned alike.
  v.zone += RoundUp(v.bytes, 8) - v.bytes;
  Poison(base_ + v.begin, v.bytes + v.zone);
  Forbid(base_ + v.begin + v.bytes, v.zone);
  placed_.push_back(v);
}

void* SharedMemory::Variable(const void* key, const char* name, size_t bytes, size_t alignment) {
  for (const Placed& v : placed_)
    if (v.key == key) return base_ + v.begin;
  int64_t total = 0;
  for (const Placed& v : placed_)
    if (v.key != nullptr) total += static_cast<int64_t>(v.bytes);
  total += static_cast<int64_t>(bytes);
  if (total > kMostStaticBytes || total + static_cast<int64_t>(placed_[0].bytes) > kMostBytes)
    throw Error(absl::StrCat("shared variable ", name, " of ", bytes,
                             " bytes: a block's variables of fixed size hold at most ",
                             kMostStaticBytes, " bytes, and with the dynamic ", placed_[0].bytes,
                             " at most ", kMostBytes));
  const Placed& last = placed_.back();
  const size_t begin =
      RoundUp(last.begin + last.bytes + last.zone, std::max<size_t>(alignment, 16));
  TESSERA_CHECK(begin + bytes + kZone + 8 <= kCapacity, "%zu shared variables", placed_.size());
  Place({key, name, begin, bytes, kZone});
  return base_ + begin;
}

bool SharedMemory::Contains(const void* p, size_t bytes) const {
  const auto* first = static_cast<const unsigned char*>(p);
  return std::ranges::any_of(placed_, [&](const Placed& v) {
    return first >= base_ + v.begin && first + bytes <= base_ + v.begin + v.bytes;
  });
}

std::string SharedMemory::Damage() const {
  if (kAddressesChecked) return "";
  // The first byte of base_[begin, end) that is no longer as it was poisoned, or `end`.
  const auto first_written = [&](size_t begin, size_t end) {
    const auto as_poisoned = [&](size_t i) {
      return base_[i] == static_cast<unsigned char>(kPoison >> (i % 8 * 8));
    };
    while (begin < end && begin % 8 != 0 && as_poisoned(begin)) ++begin;
    if (begin < end && begin % 8 != 0) return begin;
    for (uint64_t word; begin + 8 <= end; begin += 8) {
      std::memcpy(&word, base_ + begin, 8);
      if (word != kPoison) break;
    }
    while (begin < end && as_poisoned(begin)) ++begin;
    return begin;
  };
  if (first_written(0, kEndZone) < kEndZone) return "something wrote before dynamic shared memory";
  for (const Placed& v : placed_) {
    const size_t end = v.begin + v.bytes, written = first_written(end, end + v.zone);
    if (written < end + v.zone)
      return absl::StrCat("something wrote byte ", written - v.begin, " of ", v.name,
                          ", which has ", v.bytes);
  }
  return "";
}

}  // namespace tessera::simt
