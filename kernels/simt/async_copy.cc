#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/simt/sanitizer.h"
#include "kernels/simt/warp.h"

namespace tessera::simt {
namespace {

// A copy may happen at any time between its issue and the wait for it, so ThreadSanitizer is told
// of it at both ends.
void Tell(const AsyncCopy& copy) {
  Reads(copy.from, static_cast<size_t>(copy.bytes));
  Writes(copy.to, static_cast<size_t>(copy.bytes + copy.zeros));
}

void Complete(const AsyncCopy& copy) {
  Tell(copy);
  Unwatched unwatched;
  // A copy of zeros alone may have no source.
  if (copy.bytes > 0) std::memcpy(copy.to, copy.from, static_cast<size_t>(copy.bytes));
  std::memset(static_cast<char*>(copy.to) + copy.bytes, 0, static_cast<size_t>(copy.zeros));
}

}  // namespace

void IssueCopy(void* to, const void* from, int bytes, int zeros, std::source_location at) {
  const int size = bytes + zeros;
  AsyncCopy copy;
  {
    Unwatched unwatched;
    Block& block = Block::Running();
    const auto fail = [&](const char* what) {
      block.Fail(absl::StrCat(Describe({"cp_async", at}), ": ", what));
    };
    if (bytes < 0 || zeros < 0) fail("more valid bytes than it copies, or less than none");
    if (!block.shared().Contains(to, static_cast<size_t>(size)))
      fail("a destination that is not within shared memory");
    if (reinterpret_cast<uintptr_t>(to) % static_cast<uintptr_t>(size) != 0 ||
        reinterpret_cast<uintptr_t>(from) % static_cast<uintptr_t>(size) != 0)
      fail("an address that is not aligned to the size of the copy");
    copy = {to, from, bytes, zeros, block.self().open_group};
    block.self().copies.push_back(copy);
    std::memset(to, 0xff, static_cast<size_t>(size));
  }
  Tell(copy);
}

void CommitCopies() {
  Unwatched unwatched;
  ++Block::Running().self().open_group;
}

void WaitCopies(int64_t groups_in_flight) {
  Thread& me = Block::Running().self();
  const int64_t done = me.open_group - groups_in_flight;  // groups below it are waited for
  auto end = me.copies.begin();
  for (; end != me.copies.end() && end->group < done; ++end) Complete(*end);
  me.copies.erase(me.copies.begin(), end);
}

// Copies that nothing waited for are complete when their thread has ended.
void Block::FinishCopies() {
  CommitCopies();
  WaitCopies(0);
}

}  // namespace tessera::simt
