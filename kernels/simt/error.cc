#include "kernels/simt/error.h"

#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/simt/block.h"

namespace tessera::simt {

bool Call::operator==(const Call& other) const {
  const auto same = [](const char* a, const char* b) { return a == b || std::strcmp(a, b) == 0; };
  return at.line() == other.at.line() && at.column() == other.at.column() &&
         same(name, other.name) && same(at.file_name(), other.at.file_name());
}

std::string Describe(const Call& call) {
  return absl::StrCat(call.name, " (", call.at.file_name(), ":", call.at.line(), ")");
}

void Block::CheckShared(const Call* met) const {
  const std::string damage = shared_.Damage();
  if (damage.empty()) return;
  throw Error(absl::StrCat(BlockName(), ": ", damage, ", before ",
                           met != nullptr ? Describe(*met) : "the block's end"));
}

std::string Block::BlockName() const {
  const uint3 i = device::blockIdx;
  return absl::StrCat("block (", i.x, ",", i.y, ",", i.z, ")");
}

void Block::Fail(const std::string& what) const {
  throw Error(absl::StrCat(BlockName(), " thread ", self_->linear, ": ", what));
}

std::string Block::Deadlock() const {
  std::string text = absl::StrCat(BlockName(), " is in deadlock:");
  std::vector<bool> told(count_, false);
  for (int i = 0; i < count_; ++i) {
    if (told[i] || threads_[i]->waits_in == nullptr) continue;
    absl::StrAppend(&text, " threads");
    // Runs of threads that wait in the same call.
    for (int begin = i; begin < count_; ++begin) {
      const auto waits_here = [&](int j) {
        const Call* call = threads_[j]->waits_in;
        return call != nullptr && *call == *threads_[i]->waits_in;
      };
      if (!waits_here(begin)) continue;
      int end = begin;
      while (end < count_ && waits_here(end)) told[end++] = true;
      absl::StrAppend(&text, begin == i ? " " : ",", begin);
      if (end - begin > 1) absl::StrAppend(&text, "-", end - 1);
      begin = end;
    }
    absl::StrAppend(&text, " wait in ", Describe(*threads_[i]->waits_in), ";");
  }
  text.back() = '.';
  return text;
}

}  // namespace tessera::simt
