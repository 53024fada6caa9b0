#include "data/text_kind.h"

#include <gtest/gtest.h>

#include <string>

namespace tessera {
namespace {

using std::literals::operator""s;

std::string Wide(const std::string& text, size_t before, size_t after) {
  std::string wide;
  for (const char c : text) wide += std::string(before, '\0') + c + std::string(after, '\0');
  return wide;
}

TEST(TextKind, CompressedFilesAreErrors) {
  const std::pair<std::string, std::string> files[] = {
      {"\x1f\x8b\x08\0\0"s, "gzip, not text; unpack it with `gunzip`"},
      {"\x28\xb5\x2f\xfd\x04"s, "zstd, not text; unpack it with `unzstd`"},
      {"\xfd"
       "7zXZ\0\0"s,
       "xz, not text; unpack it with `unxz`"},
      {"BZh91AY&SYxx"s, "bzip2, not text; unpack it with `bunzip2`"},
      {"PK\x03\x04\x14\0"s, "zip, not text; unpack it with `unzip`"},
      {"PAR1\x15\x04"s, "Parquet, not text; write its text as jsonl, a row a line"}};
  for (const auto& [bytes, said] : files)
    EXPECT_EQ(CheckText(bytes + "more of it", "f").status().message(),
              "f: the file is " + said + " and give the result");
}

TEST(TextKind, WideEncodingsAreWarnings) {
  const std::string text = "some plain text, long enough";
  const auto said = [](const std::string& bytes) { return *CheckText(bytes, "f"); };
  const auto warning = [](const std::string& encoding) {
    return "f: the file looks like " + encoding + ", which is read byte for byte here; `iconv -f " +
           encoding.substr(0, 6) + " -t UTF-8` makes it UTF-8";
  };
  EXPECT_EQ(said("\xff\xfe" + Wide(text, 0, 1)), warning("UTF-16LE"));
  EXPECT_EQ(said("\xfe\xff" + Wide(text, 1, 0)), warning("UTF-16BE"));
  EXPECT_EQ(said("\xff\xfe\0\0"s + Wide(text, 0, 3)), warning("UTF-32LE"));
  EXPECT_EQ(said(Wide(text, 0, 1)), warning("UTF-16LE"));
  EXPECT_EQ(said(Wide(text, 1, 0)), warning("UTF-16BE"));
  EXPECT_EQ(said(Wide(text, 0, 3)), warning("UTF-32LE"));
  EXPECT_EQ(said(Wide(text, 3, 0)), warning("UTF-32BE"));
}

TEST(TextKind, ManyZerosAreAWarning) {
  EXPECT_EQ(*CheckText("text" + std::string(12, '\0'), "f"),
            "f: 75 % of the file's bytes are zeros, as in no text; was it written to its end?");
  EXPECT_NE(*CheckText(std::string(1 << 20, 'a') + std::string(1 << 20, '\0'), "f"), "");
}

TEST(TextKind, TextIsText) {
  for (const std::string& text :
       {""s, "a"s, "BZh is no mark"s, "\xef\xbb\xbfwith a mark"s, "Zwölf 日本語 🙂"s,
        "PK, PAR, 7z"s, std::string(1000, 'x') + "\0 one"s, "\xff\xff\xff latin?"s})
    EXPECT_EQ(*CheckText(text, "f"), "") << text;
}

}  // namespace
}  // namespace tessera
