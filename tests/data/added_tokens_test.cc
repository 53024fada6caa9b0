#include "data/added_tokens.h"

#include <gtest/gtest.h>

#include "data/bpe.h"
#include "data/bpe_file.h"
#include "io/files.h"
#include "tests/temporary_folder.h"

namespace tessera {
namespace {

using ::testing::IsSubstring;

// Parts in brackets, tokens with their id.
std::string Parts(const std::vector<AddedToken>& tokens, absl::string_view text,
                  size_t most = SIZE_MAX) {
  std::string parts;
  AddedTokens(tokens).Split(text, [&](absl::string_view part, int32_t id) {
    parts += "[" + std::string(part) + (id < 0 ? "" : "=" + std::to_string(id)) + "]";
    return --most > 0;
  });
  return parts;
}

TEST(AddedTokens, AreFoundFromLeftToRightTheLongestFirst) {
  EXPECT_EQ(Parts({}, "any text"), "[any text]");
  EXPECT_EQ(Parts({}, ""), "");
  const std::vector<AddedToken> tokens = {{.id = 1, .text = "<a>"},
                                          {.id = 2, .text = "<a>b"},
                                          {.id = 3, .text = "b<"},
                                          {.id = 4, .text = "n", .normalized = true}};
  EXPECT_EQ(Parts(tokens, "x<a>y"), "[x][<a>=1][y]");
  EXPECT_EQ(Parts(tokens, "<a>b<a>"), "[<a>b=2][<a>=1]");
  EXPECT_EQ(Parts(tokens, "ab<a>"), "[a][b<=3][a>]");
  EXPECT_EQ(Parts(tokens, "<<a><a"), "[<][<a>=1][<a]");
  EXPECT_EQ(Parts(tokens, "<a><a>"), "[<a>=1][<a>=1]");
  // Normalised ones only in what the others leave.
  EXPECT_EQ(Parts({{.id = 1, .text = "ab", .normalized = true}, {.id = 2, .text = "bc"}}, "abcab"),
            "[a][bc=2][ab=1]");
  EXPECT_EQ(Parts(tokens, "x<a>y", 2), "[x][<a>=1]");
}

const char kDocuments[] = "one text<|end|>another text<|end|>";

TEST(AddedTokens, OfATrainedTokenizerAreOneIdEach) {
  const BpeModel model = *TrainBpe(kDocuments, 260, nullptr, {"<|end|>", "<|pad|>"});
  const auto tokenizer = *MakeBpeTokenizer(model);
  EXPECT_EQ(tokenizer->vocab_size(), 260);
  const std::vector<int32_t> ids = *tokenizer->Encode("<|end|>a<|pad|><|end");
  EXPECT_EQ(std::vector<int32_t>(ids.begin(), ids.begin() + 3),
            (std::vector<int32_t>{258, 'a', 259}));
  EXPECT_EQ(ids.size(), 3u + 5);
  EXPECT_EQ(tokenizer->Decode(ids), "<|end|>a<|pad|><|end");
  EXPECT_EQ(*IdOfToken(*tokenizer, "<|end|>"), 258);
  EXPECT_EQ(IdOfToken(*tokenizer, "<|start|>").status().message(),
            "'<|start|>' is 9 tokens of the tokenizer (byte-level BPE, 260 tokens), where one is "
            "needed; `tessera tokenizer train --special TEXT` makes a text one token");
  // Nothing was learnt from the marks themselves.
  for (const auto& [left, right] : model.merges)
    EXPECT_EQ((model.tokens[left] + model.tokens[right]).find('|'), std::string::npos);

  const TemporaryFolder folder;
  ASSERT_TRUE(AtomicWrite(folder.path("t.json"), tokenizer->Serialize()).ok());
  const auto again = *LoadTokenizer(folder.path("t.json"));
  EXPECT_EQ(*again->Encode(kDocuments), *tokenizer->Encode(kDocuments));
  EXPECT_EQ(again->Serialize(), tokenizer->Serialize());
}

TEST(AddedTokens, SpecialTextsAreChecked) {
  const auto error = [](int64_t vocab, const std::vector<std::string>& special) {
    return std::string(TrainBpe(kDocuments, vocab, nullptr, special).status().message());
  };
  EXPECT_EQ(error(257, {"<a>", "<b>"}),
            "a vocabulary of 257 tokens; from 258 (the bytes and 2 special tokens) to 1048576 are "
            "possible");
  EXPECT_EQ(error(300, {"<a>", "<a>"}), "the special token '<a>' is given twice");
  EXPECT_EQ(error(300, {""}), "the special token '' must be valid UTF-8 of at least two bytes");
  EXPECT_EQ(error(300, {"a\xff"}),
            "the special token 'a\\xff' must be valid UTF-8 of at least two bytes");
}

// A file as others write it, with `added` in it, and tokens in its vocabulary besides.
std::string File(const std::string& added, const std::string& vocabulary = "") {
  std::string json = WriteBpeJson(*TrainBpe("abc abc abc", 259));
  const auto replace = [&](const std::string& from, const std::string& to) {
    const size_t at = json.find(from);
    EXPECT_NE(at, json.npos) << from;
    json.replace(at, from.size(), to);
  };
  replace("\"added_tokens\": []", "\"added_tokens\": [" + added + "]");
  replace("\"a\": 97", vocabulary + "\"a\": 97");
  return json;
}

TEST(AddedTokens, OfAFileStandBeyondItsVocabularyOrInIt) {
  const std::string beyond =
      R"({"id": 259, "content": "<|endoftext|>", "special": true, "normalized": false,)"
      R"( "single_word": false, "lstrip": false, "rstrip": false},)"
      R"({"id": 260, "content": "  ", "special": false, "normalized": true})";
  const auto tokenizer = *MakeBpeTokenizer(*ReadBpeJson(File(beyond), "t"));
  EXPECT_EQ(tokenizer->vocab_size(), 261);
  EXPECT_EQ(*tokenizer->Encode("a<|endoftext|>  b"), (std::vector<int32_t>{'a', 259, 260, 'b'}));
  EXPECT_EQ(tokenizer->Decode(std::vector<int32_t>{'a', 259, 260}), "a<|endoftext|>  ");

  // GPT-2 has its mark in the vocabulary as well, other files have one in the middle of the ids.
  const std::string within = R"({"id": 259, "content": "<|endoftext|>", "special": true})";
  const auto gpt2 = *MakeBpeTokenizer(*ReadBpeJson(File(within, "\"<|endoftext|>\": 259, "), "t"));
  EXPECT_EQ(gpt2->vocab_size(), 260);
  EXPECT_EQ(*gpt2->Encode("<|endoftext|>"), (std::vector<int32_t>{259}));
  const auto again = *MakeBpeTokenizer(*ReadBpeJson(gpt2->Serialize(), "t"));
  EXPECT_EQ(again->Serialize(), gpt2->Serialize());
  // A byte can be an added token.
  const auto byte = *MakeBpeTokenizer(*ReadBpeJson(File(R"({"id": 97, "content": "a"})"), "t"));
  EXPECT_EQ(byte->vocab_size(), 259);
  EXPECT_EQ(*byte->Encode("abc"), (std::vector<int32_t>{'a', 'b', 'c'}));
}

TEST(AddedTokens, WhatAFileSaysOtherwiseIsAnError) {
  const auto error = [](const std::string& added, const std::string& vocabulary = "") {
    return std::string(ReadBpeJson(File(added, vocabulary), "t").status().message());
  };
  EXPECT_EQ(error(R"({"id": 259, "content": "<a>", "lstrip": true})"),
            "t, added token 0: 'lstrip' is true; only byte-level BPE without it can be read");
  EXPECT_EQ(error(R"({"id": 259, "content": "<a>", "special": 1})"),
            "t, added token 0: 'special' is the number 1; true or false is expected");
  EXPECT_EQ(error(R"({"id": -1, "content": "<a>"})"),
            "t, added token 0: 'id' is the number -1; an integer from 0 to 2147483647 is expected");
  EXPECT_EQ(error(R"({"id": 259, "content": null})"),
            "t, added token 0: 'content' is null; a string is expected");
  EXPECT_EQ(error("7"),
            "t, added token 0: an object with the key 'content' is expected, not the number 7");
  EXPECT_EQ(error(R"({"id": 260, "content": "<a>"})"),
            "t, model: the added token '<a>' has the id 260; a text, and an id of its own below "
            "260 are expected");
  EXPECT_EQ(error(R"({"id": 259, "content": ""})"),
            "t, model: the added token '' has the id 259; a text, and an id of its own below 260 "
            "are expected");
  EXPECT_EQ(error(R"({"id": 259, "content": "<a>"}, {"id": 260, "content": "<a>"})"),
            "t, model: the added token '<a>' is given twice");
  EXPECT_EQ(error(R"({"id": 97, "content": "<a>"})").substr(0, 42),
            "t, model: the id 97 belongs to two tokens,");
  EXPECT_PRED_FORMAT2(IsSubstring, "has two ids, 258 and, added, 259",
                      error(R"({"id": 259, "content": "<a>"})", "\"<a>\": 258, "));
}

TEST(AddedTokens, OfAModelAreChecked) {
  const auto error = [](const AddedToken& token, const std::string& text) {
    BpeModel model = *TrainBpe("abc abc abc", 259);
    model.tokens.push_back(text);
    model.added = {token};
    return std::string(MakeBpeTokenizer(model).status().message());
  };
  EXPECT_EQ(error({.id = 259, .text = "<a>"}, "<a>"), "");
  EXPECT_EQ(error({.id = 260, .text = "<a>"}, "<a>"),
            "the added token '<a>' is not the one with id 260");
  EXPECT_EQ(error({.id = 259, .text = "<b>"}, "<a>"),
            "the added token '<b>' is not the one with id 259");
  EXPECT_EQ(error({.id = 259, .text = "a\xff"}, "a\xff"),
            "the added token 'a\\xff' is not valid UTF-8");
}

TEST(AddedTokens, LongTextsComeInParts) {
  const auto tokenizer = *MakeBpeTokenizer(*TrainBpe(kDocuments, 260, nullptr, {"<|end|>"}));
  std::string text;
  for (int i = 0; i < 3000; ++i) text += "another " + std::to_string(i) + "<|end|>\n";
  std::vector<int32_t> ids;
  int64_t calls = 0, bytes = 0;
  ASSERT_TRUE(tokenizer
                  ->EncodeInto(text,
                               [&](std::span<const int32_t> some, int64_t n) {
                                 EXPECT_LT(some.size(), 10000u);
                                 ids.insert(ids.end(), some.begin(), some.end());
                                 bytes += n;
                                 ++calls;
                                 EXPECT_EQ(static_cast<int64_t>(tokenizer->Decode(ids).size()),
                                           bytes);
                                 return true;
                               })
                  .ok());
  EXPECT_GT(calls, 3);
  EXPECT_EQ(tokenizer->Decode(ids), text);
  const auto of_bytes = MakeByteTokenizer();
  for (const Tokenizer* t : {tokenizer.get(), of_bytes.get()}) {
    calls = 0;
    EXPECT_TRUE(
        t->EncodeInto(text, [&](std::span<const int32_t>, int64_t) { return ++calls < 2; }).ok());
    EXPECT_EQ(calls, 2);
  }
}

}  // namespace
}  // namespace tessera
