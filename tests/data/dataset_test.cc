#include "data/dataset.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "data/bpe.h"
#include "data/permutation.h"
#include "io/files.h"
#include "tests/temporary_folder.h"

namespace tessera {
namespace {

using Format = DataConfig::Format;
using Encoding = TokenFileConfig::Encoding;

std::shared_ptr<const Tokenizer> Bytes() { return MakeByteTokenizer(); }

// A data file of its own with what it holds.
class DataFile {
 public:
  explicit DataFile(const std::string& bytes) : path_(folder_.path("data")) {
    EXPECT_TRUE(AtomicWrite(path_, bytes).ok());
  }
  DataConfig config(Format format, double val_fraction = 0) const {
    return {.format = format, .path = path_, .val_fraction = val_fraction};
  }
  const std::string& path() const { return path_; }

  // The message of opening it, without its path.
  std::string Error(DataConfig config, int64_t T = 4) const {
    std::string message(Dataset::Open(config, Bytes(), T).status().message());
    for (size_t at; (at = message.find(path_)) != message.npos;)
      message.replace(at, path_.size(), "F");
    return message;
  }

 private:
  TemporaryFolder folder_;
  std::string path_;
};

std::string Counting(int64_t n) {
  std::string text;
  for (int64_t i = 0; i < n; ++i) text.push_back(static_cast<char>(i));
  return text;
}

template <class Word>
std::string AsBytes(const std::vector<Word>& words) {
  std::string bytes(words.size() * sizeof(Word), '\0');
  std::memcpy(bytes.data(), words.data(), bytes.size());
  return bytes;
}

std::string WithHeader(int32_t magic, int32_t version, int32_t count, const std::string& ids) {
  std::vector<int32_t> header(256);
  header[0] = magic, header[1] = version, header[2] = count;
  return AsBytes(header) + ids;
}

TEST(Permutation, IsABijectionThatDependsOnTheKey) {
  for (const int64_t n : {1, 2, 3, 4, 5, 16, 17, 100, 1000}) {
    std::set<int64_t> seen;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t x = PermutedIndex(Rng(1, "a"), i, n);
      EXPECT_TRUE(x >= 0 && x < n);
      seen.insert(x);
    }
    EXPECT_EQ(static_cast<int64_t>(seen.size()), n);
  }
  int64_t same = 0, fixed = 0;
  for (int64_t i = 0; i < 1000; ++i) {
    same += PermutedIndex(Rng(1, "a"), i, 1000) == PermutedIndex(Rng(2, "a"), i, 1000);
    fixed += PermutedIndex(Rng(1, "a"), i, 1000) == i;
  }
  EXPECT_LT(same, 10);  // one is expected of independent orders
  EXPECT_LT(fixed, 10);
}

TEST(Dataset, AnEpochTakesEachTokenOnce) {
  const DataFile file(Counting(103));
  const Dataset data = *Dataset::Open(file.config(Format::kText), Bytes(), 5);
  // (103 - 5) / 5 = 19 windows an epoch; as one batch each epoch is a step.
  std::set<int32_t> phases;
  for (int64_t epoch = 0; epoch < 20; ++epoch) {
    const Batch batch = data.TrainBatch({.seed = 7, .step = epoch}, 19, 5);
    std::vector<int32_t> inputs = batch.inputs;
    EXPECT_FALSE(std::is_sorted(inputs.begin(), inputs.end()));
    std::sort(inputs.begin(), inputs.end());
    for (size_t i = 0; i < inputs.size(); ++i)
      EXPECT_EQ(inputs[i], inputs[0] + static_cast<int32_t>(i));
    for (size_t i = 0; i < inputs.size(); ++i) EXPECT_EQ(batch.targets[i], batch.inputs[i] + 1);
    phases.insert(inputs[0]);
  }
  EXPECT_GT(phases.size(), 2u);
}

TEST(Dataset, ABatchIsAFunctionOfSeedAndStep) {
  const DataFile file(Counting(250));
  const Dataset data = *Dataset::Open(file.config(Format::kText), Bytes(), 5);
  const Batch whole = data.TrainBatch({.seed = 3, .step = 11}, 6, 5);
  EXPECT_EQ(whole.inputs, data.TrainBatch({.seed = 3, .step = 11}, 6, 5).inputs);
  EXPECT_NE(whole.inputs, data.TrainBatch({.seed = 4, .step = 11}, 6, 5).inputs);
  EXPECT_NE(whole.inputs, data.TrainBatch({.seed = 3, .step = 12}, 6, 5).inputs);
  // Three micro-batches of two rows are the same six rows.
  std::vector<int32_t> parts;
  for (int64_t m = 0; m < 3; ++m) {
    const Batch part =
        data.TrainBatch({.seed = 3, .step = 11, .micro_batch = m, .micro_batches = 3}, 2, 5);
    parts.insert(parts.end(), part.inputs.begin(), part.inputs.end());
  }
  EXPECT_EQ(parts, whole.inputs);
  EXPECT_TRUE(whole.position.empty());
}

TEST(Dataset, ValidationGoesThroughTheLastPartInOrder) {
  const DataFile file(Counting(200));
  const Dataset data = *Dataset::Open(file.config(Format::kText, 0.2), Bytes(), 6);
  EXPECT_EQ(data.train_tokens(), 160);
  EXPECT_EQ(data.val_tokens(), 40);
  ASSERT_EQ(data.ValidationBatches(4, 6), 2);
  const Batch first = data.ValidationBatch(0, 4, 6), second = data.ValidationBatch(1, 4, 6);
  EXPECT_EQ(first.target_count, 24);
  EXPECT_EQ(second.target_count, 15);  // of 39
  std::vector<int32_t> targets = first.targets;
  targets.insert(targets.end(), second.targets.begin(), second.targets.end());
  for (int32_t t = 0; t < 48; ++t)
    EXPECT_EQ(targets[static_cast<size_t>(t)], t < 39 ? 161 + t : kNoTarget);
  EXPECT_EQ(first.inputs[0], 160);
  EXPECT_EQ(second.inputs[14], 198);
  EXPECT_EQ(second.inputs[15], 0);
  EXPECT_EQ(first.target_bytes + second.target_bytes, 39);
  const Batch cut = data.ValidationBatch(0, 4, 6, 8);
  EXPECT_EQ(cut.target_count, 8);
  EXPECT_EQ(cut.target_bytes, 8);
  for (size_t t = 0; t < 24; ++t) EXPECT_EQ(cut.targets[t], t < 8 ? first.targets[t] : kNoTarget);
  for (int64_t step = 0; step < 30; ++step)
    for (const int32_t id : data.TrainBatch({.step = step}, 4, 6).targets) EXPECT_LT(id, 160);
}

TEST(Dataset, BytesOfTheTargetsAreCountedThroughTheTokenizer) {
  const std::string text = "abab abab abab abab abab abab";
  const DataFile file(text);
  const std::shared_ptr<const Tokenizer> bpe = *MakeBpeTokenizer(*TrainBpe(text, 259));
  const Dataset data = *Dataset::Open(file.config(Format::kText, 0.5), bpe, 1);
  int64_t bytes = 0;
  for (int64_t i = 0; i < data.ValidationBatches(1, 1); ++i)
    bytes += data.ValidationBatch(i, 1, 1).target_bytes;
  EXPECT_EQ(data.train_tokens() + data.val_tokens(), 6);
  EXPECT_EQ(data.val_tokens(), 3);
  EXPECT_EQ(bytes, 10);  // " abab" twice: the first token of the part is only an input
  EXPECT_NEAR(data.bytes_per_token(), static_cast<double>(text.size()) / 6, 1e-12);
}

TEST(Dataset, DocumentsOfJsonlRestartThePosition) {
  const DataFile file(
      "{\"text\": \"abc\", \"source\": 1}\n{\"text\": \"\"}\n{\"text\": \"defgh\"}\n"
      "{\"text\": \"ij\"}\n{\"text\": \"klmn\"}");
  const Dataset data = *Dataset::Open(file.config(Format::kJsonl, 0.3), Bytes(), 3);
  EXPECT_EQ(data.documents(), 4);
  EXPECT_EQ(data.train_tokens(), 10);  // 14 tokens; the document nearest to 9.8 begins at 10
  const Batch val = data.ValidationBatch(0, 1, 3);
  EXPECT_EQ(val.inputs, (std::vector<int32_t>{'k', 'l', 'm'}));
  EXPECT_EQ(val.targets, (std::vector<int32_t>{'l', 'm', 'n'}));
  EXPECT_EQ(val.position, (std::vector<int32_t>{0, 1, 2}));
  for (int64_t step = 0; step < 20; ++step) {
    const Batch batch = data.TrainBatch({.step = step}, 1, 3);
    for (size_t t = 1; t < 3; ++t) {
      const bool begins =
          std::string("adi").find(static_cast<char>(batch.inputs[t])) != std::string::npos;
      EXPECT_EQ(batch.position[t], begins ? 0 : batch.position[t - 1] + 1);
      EXPECT_EQ(batch.targets[t - 1], begins ? kNoTarget : batch.inputs[t]);
    }
    EXPECT_EQ(batch.position[0], 0);
  }
}

TEST(Dataset, JsonlMayHaveBlankLinesAnyLineEndsAndByteOrderMarks) {
  const DataFile file(
      "\xef\xbb\xbf{\"text\": \"abc\"}\r\n\r\n \t\n  {\"text\": \"def\"}  \n"
      "\xef\xbb\xbf{\"text\": \"gh\\n\"}\n\n");
  const Dataset data = *Dataset::Open(file.config(Format::kJsonl), Bytes(), 8);
  EXPECT_EQ(data.documents(), 3);
  const Batch batch = data.TrainBatch({}, 1, 8);
  EXPECT_EQ(batch.inputs, (std::vector<int32_t>{'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'}));
  EXPECT_EQ(batch.targets,
            (std::vector<int32_t>{'b', 'c', kNoTarget, 'e', 'f', kNoTarget, 'h', '\n'}));
}

TEST(Dataset, TokenFilesOfEveryEncodingAreTheSameTokens) {
  const std::string u16 = AsBytes(std::vector<uint16_t>{9, 1, 2, 9, 3, 4, 5, 6});
  const std::string u32 = AsBytes(std::vector<uint32_t>{9, 1, 2, 9, 3, 4, 5, 6});
  const std::pair<std::string, Encoding> files[] = {
      {u16, Encoding::kU16},
      {u32, Encoding::kU32},
      {WithHeader(20240520, 1, 8, u16), Encoding::kHeader},
      {WithHeader(20240801, 7, 8, u32), Encoding::kHeader}};
  for (const auto& [bytes, encoding] : files) {
    const DataFile file(bytes);
    DataConfig config = file.config(Format::kTokens);
    config.tokens = {.encoding = encoding, .document_id = 9};
    const Dataset data = *Dataset::Open(config, Bytes(), 7);
    const Batch batch = data.TrainBatch({}, 1, 7);
    EXPECT_EQ(batch.inputs, (std::vector<int32_t>{9, 1, 2, 9, 3, 4, 5}));
    EXPECT_EQ(batch.targets, (std::vector<int32_t>{1, 2, 9, 3, 4, 5, 6}));
    EXPECT_EQ(batch.position, (std::vector<int32_t>{0, 1, 2, 0, 1, 2, 3}));
    EXPECT_EQ(data.documents(), 2);
  }
}

TEST(DatasetErrors, OfTheFile) {
  EXPECT_EQ(Dataset::Open({.path = "/nowhere/text"}, Bytes(), 4).status().message(),
            "cannot open /nowhere/text: No such file or directory (ENOENT)");
  EXPECT_EQ(Dataset::Open({.path = "/tmp"}, Bytes(), 4).status().message(),
            "/tmp is a folder; a file is expected");
  const DataFile empty("");
  EXPECT_EQ(empty.Error(empty.config(Format::kText)),
            "F: the file is empty; there is nothing to train on");
}

TEST(DatasetErrors, OfTheLength) {
  const DataFile text("0123456789");
  EXPECT_EQ(text.Error(text.config(Format::kText, 0.1), 9),
            "F: the training part has 9 tokens of the 10 in the file, but one sequence of 9 needs "
            "10; give more text, shorten train.seq or change val_fraction (0.1)");
  EXPECT_EQ(text.Error(text.config(Format::kText, 0.2), 2),
            "F: the validation part has 2 tokens of the 10 in the file, but one sequence of 2 "
            "needs 3; give more text, shorten train.seq or change val_fraction (0.2)");
  EXPECT_EQ(text.Error(text.config(Format::kText, 0.6), 2),
            "val_fraction = 0.6; from 0 to 0.5 is possible");
}

TEST(DatasetErrors, OfJsonl) {
  const auto error = [](const std::string& bytes) {
    const DataFile file(bytes);
    return file.Error(file.config(Format::kJsonl));
  };
  EXPECT_EQ(error("{\"text\": \"good\"}\n{\"txt\": \"bad\"}\n"),
            "F:2: the key 'text' is missing; it holds a string");
  EXPECT_EQ(error("{\"text\": 3}"), "F:1: 'text' is the number 3; a string is expected");
  EXPECT_EQ(error("{\"text\": \"a\", \"text\": \"b\"}"), "F:1: the key 'text' is given twice");
  EXPECT_EQ(error("[\"text\"]"), "F:1: an object with the key 'text' is expected, not an array");
  EXPECT_EQ(error("{\"text\": \"cut"),
            R"(F:1: not valid JSON at byte 14: 'invalid string: missing closing quote; last read: )"
            R"(\'\"cut\'')");
  EXPECT_EQ(error("\n{\"text\": \"good\"}\nplain words\n"),
            "F:3: each line is a JSON object such as {\"text\": \"a document\"}, but this one "
            "begins with 'plain words'");
  for (const char* nothing : {"\n", " \t\r\n\n", "\xef\xbb\xbf\n", "{\"text\": \"\"}\n"})
    EXPECT_EQ(error(nothing),
              "F: no line holds a document with any text; there is nothing to train on");
}

TEST(DatasetErrors, OfDataWithoutATarget) {
  std::string rows;
  for (int i = 0; i < 200; ++i) rows += "{\"text\": \"a\"}\n";
  const auto error = [](const std::string& bytes, double val_fraction) {
    const DataFile file(bytes);
    return file.Error(file.config(Format::kJsonl, val_fraction));
  };
  EXPECT_EQ(error(rows, 0.05),
            "F: the training part has 190 documents of one token each, so no token has a next one "
            "to predict; give longer documents");
  EXPECT_EQ(error(rows, 1),
            "F: the file has 200 documents of one token each, so no token has a next one to "
            "predict; give longer documents");
  EXPECT_EQ(
      error("{\"text\": \"abcdefgh\"}\n" + rows, 0.5),
      "F: the validation part has 104 documents of one token each, so no token has a next one "
      "to predict; give longer documents");
  EXPECT_EQ(error("{\"text\": \"abcdefgh\"}\n" + rows + "{\"text\": \"ab\"}\n", 0.5), "");
}

TEST(DatasetErrors, OfTokenFiles) {
  const auto error = [](const std::string& bytes, TokenFileConfig tokens) {
    const DataFile file(bytes);
    DataConfig config = file.config(Format::kTokens);
    config.tokens = tokens;
    return file.Error(config);
  };
  const std::string ids = AsBytes(std::vector<uint16_t>{1, 2, 256, 3});
  EXPECT_EQ(error(ids, {.encoding = Encoding::kU16}),
            "F: token 2 (byte 4) has id 256, but the tokenizer has 256 tokens; use the tokenizer "
            "that wrote the file");
  EXPECT_EQ(error(WithHeader(20240520, 1, 4, ids), {}),
            "F: token 2 (byte 1028) has id 256, but the tokenizer has 256 tokens; use the "
            "tokenizer that wrote the file");
  EXPECT_EQ(error(AsBytes(std::vector<uint32_t>{1, 0xffffffffu}), {.encoding = Encoding::kU32}),
            "F: token 1 (byte 4) has id 4294967295, but the tokenizer has 256 tokens; use the "
            "tokenizer that wrote the file");
  EXPECT_EQ(error(ids + "x", {.encoding = Encoding::kU16}),
            "F: the file has 9 bytes, no multiple of the 2 bytes of a token");
  EXPECT_EQ(error(ids, {}), "F: the file has 8 bytes, less than the header of 1024");
  EXPECT_EQ(error(WithHeader(20240520, 1, 5, ids), {}),
            "F: the header says 5 tokens, which would be 1034 bytes, but the file has 1032");
  EXPECT_EQ(error(WithHeader(20240520, 1, -4, ids), {}),
            "F: the header says -4 tokens, which would be 1016 bytes, but the file has 1032");
  EXPECT_EQ(error(WithHeader(20240522, 1, 4, ids), {}),
            "F: the header says magic 20240522, version 1; 20240520, 1 (uint16) or 20240801, 7 "
            "(uint32) are expected; for ids without a header say which width they have");
  EXPECT_EQ(error(ids, {.encoding = Encoding::kU16, .document_id = 300}),
            "F: the document token has id 300, but the tokenizer has 256 tokens");
  const std::string whole = WithHeader(20240520, 1, 4, ids);
  for (size_t n = 0; n < whole.size(); n += n < 1020 ? 29 : 1)
    EXPECT_NE(error(whole.substr(0, n), {}), "") << n;
}

}  // namespace
}  // namespace tessera
