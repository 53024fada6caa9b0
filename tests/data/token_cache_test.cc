#include "data/token_cache.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "data/bpe.h"
#include "data/dataset.h"
#include "io/files.h"
#include "tests/temporary_folder.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using Format = DataConfig::Format;

// A text, and what is heard while it is opened.
class TokenCache : public ::testing::Test {
 protected:
  TokenCache() {
    for (int i = 0; i < 500; ++i) text_ += "line " + std::to_string(i * i % 97) + " of it\n";
    Write(text_);
    bpe_ = *MakeBpeTokenizer(*TrainBpe(text_, 300));
    setenv("XDG_CACHE_HOME", folder_.path("xdg").c_str(), 1);
  }
  ~TokenCache() override { unsetenv("XDG_CACHE_HOME"); }

  void Write(const std::string& bytes) { ASSERT_TRUE(AtomicWrite(path_, bytes).ok()); }
  // All tokens of the file. Leaves whether it was tokenised, and what was said.
  std::vector<int32_t> Open(const Tokenizer& tokenizer, const DocumentConfig& documents = {},
                            Format format = Format::kText) {
    tokenised_ = 0;
    said_.clear();
    const DataListener listener = {.message = [&](const std::string& line) { said_ += line; },
                                   .progress =
                                       [&](int64_t done, int64_t all) {
                                         EXPECT_LE(done, all);
                                         ++tokenised_;
                                         return true;
                                       }};
    const absl::StatusOr<TokenStream> stream =
        format == Format::kText ? OpenText(path_, documents, tokenizer, listener)
                                : OpenJsonl(path_, documents, tokenizer, listener);
    EXPECT_TRUE(stream.ok()) << stream.status();
    if (!stream.ok()) return {};
    std::vector<int32_t> ids(static_cast<size_t>(stream->size()));
    stream->Read(0, stream->size(), ids.data());
    begins_.assign(stream->document_begins().begin(), stream->document_begins().end());
    for (size_t at; (at = said_.find(folder_.path(""))) != said_.npos;)
      said_.replace(at, folder_.path("").size(), "F/");
    return ids;
  }
  // The one file in a folder of the cache.
  std::string CacheFile(const std::string& folder = ".tessera-cache") {
    const std::vector<std::string> names = folder_.Names(folder);
    EXPECT_EQ(names.size(), 1u);
    return names.empty() ? "" : folder_.path(folder + "/" + names[0]);
  }

  TemporaryFolder folder_;
  const std::string path_ = folder_.path("data.txt");
  std::string text_, said_;
  std::shared_ptr<const Tokenizer> bpe_;
  std::vector<int64_t> begins_;
  int tokenised_ = 0;
};

TEST_F(TokenCache, ATextIsTokenisedOnce) {
  const std::vector<int32_t> ids = Open(*bpe_);
  EXPECT_GT(tokenised_, 0);
  EXPECT_EQ(ids, *bpe_->Encode(text_));
  EXPECT_EQ(Open(*bpe_), ids);
  EXPECT_EQ(tokenised_, 0);
  EXPECT_EQ(said_, "");
  // Bytes are ids as they are.
  EXPECT_EQ(Open(*MakeByteTokenizer()).size(), text_.size());
  EXPECT_EQ(tokenised_, 0);
  CacheFile();
}

TEST_F(TokenCache, AnotherTextTokenizerOrSeparatorIsTokenisedAnew) {
  Open(*bpe_);
  text_[7] = 'X';  // the size, and perhaps the time, are as before
  Write(text_);
  EXPECT_EQ(Open(*bpe_), *bpe_->Encode(text_));
  EXPECT_GT(tokenised_, 0);
  const auto other = *MakeBpeTokenizer(*TrainBpe(text_, 301));
  EXPECT_EQ(Open(*other), *other->Encode(text_));
  EXPECT_GT(tokenised_, 0);
  EXPECT_EQ(Open(*bpe_, {.separator = "\n"}).size(), Open(*bpe_, {.separator = "\n"}).size());
  EXPECT_EQ(begins_.size(), 500u);
  EXPECT_EQ(tokenised_, 0);
  EXPECT_EQ(folder_.Names(".tessera-cache").size(), 4u);
  EXPECT_EQ(said_, "");
}

TEST_F(TokenCache, AFileThatIsNotWholeOrForeignIsNoticed) {
  const std::vector<int32_t> ids = Open(*bpe_);
  const std::string file = CacheFile(), whole = *ReadFile(file);
  const auto again = [&](const std::string& bytes) {
    EXPECT_TRUE(AtomicWrite(file, bytes).ok());
    EXPECT_EQ(Open(*bpe_), ids);
    EXPECT_EQ(tokenised_ > 0, bytes != whole);
    EXPECT_EQ(*ReadFile(file), whole);
    return said_.substr(said_.find("tokens ") + 1);
  };
  for (size_t n = 0; n < whole.size(); n += 1 + n / 7) again(whole.substr(0, n));
  for (size_t at = 0; at < whole.size(); at += 1 + at / 9) {
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ 1);
    again(changed);
    EXPECT_NE(said_.find("; F/data.txt is tokenised again"), std::string::npos) << said_;
  }
  again("");
  EXPECT_NE(said_.find(" is cut off; "), std::string::npos) << said_;
  std::string foreign = whole;
  foreign[whole.size() - 40] = 'x';
  again(foreign);
  EXPECT_NE(said_.find(" is of another text or tokenizer; "), std::string::npos) << said_;
  again(whole);
}

TEST_F(TokenCache, StandsElsewhereWhereTheFolderCannotBeWritten) {
  ASSERT_TRUE(AtomicWrite(folder_.path(".tessera-cache"), "no folder").ok());
  const std::vector<int32_t> ids = Open(*bpe_);
  EXPECT_EQ(Open(*bpe_), ids);
  EXPECT_EQ(tokenised_, 0);
  CacheFile("xdg/tessera");
  setenv("XDG_CACHE_HOME", path_.c_str(), 1);
  const auto nowhere = OpenText(path_, {}, *bpe_, {});
  EXPECT_EQ(nowhere.status().message().substr(0, 42),
            "there is no place for the tokens of " + path_.substr(0, 6));
  EXPECT_NE(nowhere.status().message().find("; set XDG_CACHE_HOME to a folder that can be written"),
            absl::string_view::npos);
}

TEST_F(TokenCache, AnInterruptedOneLeavesNothing) {
  const auto stream =
      OpenText(path_, {}, *bpe_, {.progress = [](int64_t, int64_t) { return false; }});
  EXPECT_TRUE(absl::IsCancelled(stream.status()));
  EXPECT_TRUE(folder_.Names(".tessera-cache").empty());
}

TEST_F(TokenCache, ProcessesMayTokeniseAtOnce) {
  std::vector<pid_t> children;
  for (int i = 0; i < 4; ++i) {
    children.push_back(fork());
    if (children.back() == 0) {
      const auto stream = OpenText(path_, {}, *bpe_, {});
      _exit(stream.ok() ? 0 : 1);
    }
  }
  for (const pid_t child : children) {
    int status = -1;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(Open(*bpe_), *bpe_->Encode(text_));
  EXPECT_EQ(tokenised_, 0);
  CacheFile();
}

TEST_F(TokenCache, DocumentsOfTextStandBetweenSeparators) {
  const auto bytes = MakeByteTokenizer();
  Write("--ab----cd--e-");
  const std::vector<int32_t> want = {'a', 'b', 'c', 'd', 'e', '-'};
  EXPECT_EQ(Open(*bytes, {.separator = "--"}), want);
  EXPECT_EQ(begins_, (std::vector<int64_t>{0, 2, 4}));
  // A token before each document and after the last.
  EXPECT_EQ(Open(*bytes, {.separator = "--", .token = "#"}),
            (std::vector<int32_t>{'#', 'a', 'b', '#', 'c', 'd', '#', 'e', '-', '#'}));
  EXPECT_EQ(begins_, (std::vector<int64_t>{0, 3, 6}));
  EXPECT_EQ(Open(*bytes, {.separator = "=="}).size(), 14u);
  EXPECT_EQ(said_,
            "warning: F/data.txt: the separator '==' is nowhere in the file, which is one document "
            "then");
  Write("{\"text\": \"ab\"}\n{\"text\": \"\"}\n{\"text\": \"c\"}\n");
  EXPECT_EQ(Open(*bytes, {.token = "#"}, Format::kJsonl),
            (std::vector<int32_t>{'#', 'a', 'b', '#', 'c', '#'}));
  EXPECT_EQ(begins_, (std::vector<int64_t>{0, 3}));
  const auto special = *MakeBpeTokenizer(*TrainBpe(text_, 300, nullptr, {"<|end|>"}));
  EXPECT_EQ(Open(*special, {.token = "<|end|>"}, Format::kJsonl),
            (std::vector<int32_t>{299, 'a', 'b', 299, 'c', 299}));
  Write("----");
  EXPECT_EQ(OpenText(path_, {.separator = "--"}, *bytes, {}).status().message(),
            path_ + ": no document holds any text; there is nothing to train on");
  EXPECT_EQ(OpenText(path_, {.separator = "--", .token = "xy"}, *bytes, {}).status().message(),
            "'xy' is 2 tokens of the tokenizer (bytes, 256 tokens), where one is needed; `tessera "
            "tokenizer train --special TEXT` makes a text one token");
}

TEST_F(TokenCache, TheEndOfADocumentIsATarget) {
  Write("{\"text\": \"ab\"}\n{\"text\": \"c\"}\n");
  const Dataset data = *Dataset::Open(
      {.format = Format::kJsonl, .path = path_, .val_fraction = 0, .documents = {.token = "#"}},
      MakeByteTokenizer(), 5);
  const Batch batch = data.TrainBatch({}, 1, 5);
  EXPECT_EQ(batch.inputs, (std::vector<int32_t>{'#', 'a', 'b', '#', 'c'}));
  EXPECT_EQ(batch.targets, (std::vector<int32_t>{'a', 'b', '#', 'c', '#'}));
  EXPECT_EQ(batch.position, (std::vector<int32_t>{0, 1, 2, 0, 1}));
}

}  // namespace
}  // namespace tessera
