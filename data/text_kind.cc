#include "data/text_kind.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace tessera {
namespace {

using std::literals::operator""sv;

struct Container {
  std::string_view begin;
  const char *name, *advice;
};
constexpr Container kContainers[] = {
    {"\x1f\x8b\x08"sv, "gzip", "unpack it with `gunzip`"},
    {"\x28\xb5\x2f\xfd"sv, "zstd", "unpack it with `unzstd`"},
    {"\xfd"
     "7zXZ\0"sv,
     "xz", "unpack it with `unxz`"},
    {"BZh"sv, "bzip2", "unpack it with `bunzip2`"},
    {"\x04\x22\x4d\x18"sv, "lz4", "unpack it with `unlz4`"},
    {"PK\x03\x04"sv, "zip", "unpack it with `unzip`"},
    {"7z\xbc\xaf\x27\x1c"sv, "7z", "unpack it with `7z x`"},
    {"PAR1"sv, "Parquet", "write its text as jsonl, a row a line"},
};

// bzip2's letters alone could begin a text; the first block's mark follows them.
bool Begins(absl::string_view bytes, const Container& c) {
  if (!absl::StartsWith(bytes, absl::string_view(c.begin.data(), c.begin.size()))) return false;
  return c.begin != "BZh" || bytes.substr(4, 6) == "\x31\x41\x59\x26\x53\x59";
}

// Zeros among the bytes at each place of four.
struct Zeros {
  int64_t at[4] = {}, bytes = 0;
  int64_t all() const { return at[0] + at[1] + at[2] + at[3]; }
};

// Of the begin, the middle and the end of a file: in one that was not written to its end the zeros
// come last.
Zeros Count(absl::string_view bytes) {
  constexpr size_t kSample_bytes = 1 << 16;
  Zeros zeros;
  const size_t last = bytes.size() > kSample_bytes ? bytes.size() - kSample_bytes : 0;
  for (const size_t begin : {size_t{0}, last / 2 & ~size_t{3}, last & ~size_t{3}}) {
    const absl::string_view sample = bytes.substr(begin, kSample_bytes);
    zeros.bytes += static_cast<int64_t>(sample.size());
    for (size_t i = 0; i < sample.size(); ++i) zeros.at[i % 4] += sample[i] == '\0';
    if (last == 0) break;
  }
  return zeros;
}

// The encoding, or "" for one byte a character.
std::string WideEncoding(absl::string_view bytes, const Zeros& zeros) {
  const auto begins = [&](std::string_view mark) {
    return absl::StartsWith(bytes, absl::string_view(mark.data(), mark.size()));
  };
  if (begins("\xff\xfe\0\0"sv)) return "UTF-32LE";
  if (begins("\0\0\xfe\xff"sv)) return "UTF-32BE";
  if (begins("\xff\xfe"sv)) return "UTF-16LE";
  if (begins("\xfe\xff"sv)) return "UTF-16BE";
  // Without a mark: nearly all characters of most texts have zeros at the same places.
  const auto most = [&](int64_t count) { return count * 4 * 10 >= zeros.bytes * 7; };
  const auto few = [&](int64_t count) { return count * 4 * 20 <= zeros.bytes; };
  if (zeros.bytes < 8) return "";
  const auto& at = zeros.at;
  if (most(at[1]) && most(at[2]) && most(at[3]) && few(at[0])) return "UTF-32LE";
  if (most(at[0]) && most(at[1]) && most(at[2]) && few(at[3])) return "UTF-32BE";
  if (most(at[1]) && most(at[3]) && few(at[0]) && few(at[2])) return "UTF-16LE";
  if (most(at[0]) && most(at[2]) && few(at[1]) && few(at[3])) return "UTF-16BE";
  return "";
}

}  // namespace

absl::StatusOr<std::string> CheckText(absl::string_view bytes, const std::string& path) {
  for (const Container& c : kContainers)
    if (Begins(bytes, c))
      return absl::InvalidArgumentError(absl::StrCat(path, ": the file is ", c.name, ", not text; ",
                                                     c.advice, " and give the result"));
  const Zeros zeros = Count(bytes);
  if (const std::string encoding = WideEncoding(bytes, zeros); !encoding.empty())
    return absl::StrCat(path, ": the file looks like ", encoding,
                        ", which is read byte for byte here; `iconv -f ", encoding.substr(0, 6),
                        " -t UTF-8` makes it UTF-8");
  if (zeros.all() * 100 > zeros.bytes)
    return absl::StrFormat(
        "%s: %d %% of the file's bytes are zeros, as in no text; was it written to its end?", path,
        zeros.all() * 100 / zeros.bytes);
  return "";
}

}  // namespace tessera
