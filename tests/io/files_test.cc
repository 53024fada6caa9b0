#include "io/files.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "io/json.h"
#include "tests/temporary_folder.h"

namespace tessera {
namespace {

using ::testing::IsSubstring;

TEST(Files, WriteReplacesTheWholeFileAndLeavesNothingElse) {
  const TemporaryFolder folder;
  const std::string path = folder.path("x");
  ASSERT_TRUE(AtomicWrite(path, "a longer first text").ok());
  ASSERT_TRUE(AtomicWrite(path, "second").ok());
  EXPECT_EQ(*ReadFile(path), "second");
  EXPECT_EQ(MappedFile::Open(path)->bytes(), "second");
  EXPECT_EQ(folder.Names(), std::vector<std::string>{"x"});
}

TEST(Files, WithoutCommitTheOldFileStays) {
  const TemporaryFolder folder;
  const std::string path = folder.path("x");
  ASSERT_TRUE(AtomicWrite(path, "old").ok());
  { ASSERT_TRUE(AtomicFile::Create(path)->Append("new").ok()); }
  EXPECT_EQ(*ReadFile(path), "old");
  EXPECT_EQ(folder.Names(), std::vector<std::string>{"x"});
}

// A limit on the size of files makes write() short and then fail, as a full disk does.
TEST(Files, AWriteThatFailsHalfwayLeavesTheOldFile) {
  const TemporaryFolder folder;
  const std::string path = folder.path("x");
  ASSERT_TRUE(AtomicWrite(path, "old").ok());
  rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 1000;
  setrlimit(RLIMIT_FSIZE, &small);
  const absl::Status status = AtomicWrite(path, std::string(5000, 'n'));
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(status,
            absl::ResourceExhaustedError("cannot write " + path + ": File too large (EFBIG)"));
  EXPECT_EQ(*ReadFile(path), "old");
  EXPECT_EQ(folder.Names(), std::vector<std::string>{"x"});
}

TEST(Files, ErrorsNameThePathAndTheReason) {
  const TemporaryFolder folder;
  const std::string missing = folder.path("missing");
  EXPECT_EQ(ReadFile(missing).status(),
            absl::NotFoundError("cannot open " + missing + ": No such file or directory (ENOENT)"));
  EXPECT_EQ(MappedFile::Open(folder.path("")).status().message(),
            folder.path("") + " is a folder; a file is expected");
  const std::string pipe = folder.path("pipe");
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_PRED_FORMAT2(IsSubstring, "is not a regular file",
                      std::string(ReadFile(pipe).status().message()));
  const std::string file = folder.path("file");
  ASSERT_TRUE(AtomicWrite(file, "12345").ok());
  EXPECT_EQ(ReadFile(file, 4).status().message(), file + " has 5 bytes; at most 4 are read here");
  EXPECT_EQ(AtomicWrite(file + "/inside", "").message(),
            "cannot create " + file + "/inside: Not a directory (ENOTDIR)");
  EXPECT_PRED_FORMAT2(IsSubstring, "cannot create the folder",
                      std::string(MakeDirectories(file + "/inside").message()));
}

TEST(Files, AnEmptyFileIsMappedAsNoBytes) {
  const TemporaryFolder folder;
  ASSERT_TRUE(AtomicWrite(folder.path("empty"), "").ok());
  EXPECT_TRUE(MappedFile::Open(folder.path("empty"))->bytes().empty());
  EXPECT_EQ(*ReadFile(folder.path("empty")), "");
}

TEST(StrictJson, RefusesWhatALenientReaderLetsPass) {
  const auto error = [](absl::string_view text) {
    return std::string(ParseJson(text, "f", 3).status().message());
  };
  EXPECT_EQ(error(R"({"a": 1, "a": 2})"), "f: the key 'a' is given twice");
  EXPECT_EQ(error("[[[[1]]]]"), "f: nested deeper than 3 levels");
  EXPECT_PRED_FORMAT2(IsSubstring, "f: not valid JSON at byte 4", std::string(error("[1,")));
  EXPECT_PRED_FORMAT2(IsSubstring, "f: empty", std::string(error("")));
  EXPECT_PRED_FORMAT2(IsSubstring, "f: not valid JSON", std::string(error("1 2")));
  EXPECT_PRED_FORMAT2(IsSubstring, "f: not valid JSON", std::string(error("\"\xff\"")));
  EXPECT_EQ(ParseJson(R"({"a": [1, {"b": null}], "c": "d"})", "f")->dump(),
            R"({"a":[1,{"b":null}],"c":"d"})");
}

TEST(StrictJson, IntegersDoNotWrap) {
  const nlohmann::json object = *ParseJson(
      R"({"big": 18446744073709551616, "wide": 9223372036854775808, "float": 1.0, "exp": 1e3,
          "minus": -1, "zero": -0, "text": "1", "good": 7})",
      "f");
  for (const char* key : {"big", "wide", "float", "exp", "minus", "zero", "text"})
    EXPECT_FALSE(GetInteger(object, key, 0, INT64_MAX, "f").ok()) << key;
  EXPECT_EQ(*GetInteger(object, "good", 0, 7, "f"), 7);
  EXPECT_EQ(*GetInteger(object, "minus", -1, 7, "f"), -1);
  EXPECT_EQ(GetInteger(object, "good", 0, 6, "f").status().message(),
            "f: 'good' is the number 7; an integer from 0 to 6 is expected");
  EXPECT_EQ(GetInteger(object, "none", 0, 6, "f").status().message(),
            "f: the key 'none' is missing; it holds an integer");
  EXPECT_EQ(GetString(object, "good", "f").status().message(),
            "f: 'good' is the number 7; a string is expected");
}

}  // namespace
}  // namespace tessera
