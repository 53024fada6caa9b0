#include "data/tokenizer.h"

#include <gtest/gtest.h>

#include <map>

#include "core/rng.h"
#include "data/bpe.h"
#include "data/bpe_file.h"
#include "io/files.h"
#include "tests/temporary_folder.h"

namespace tessera {
namespace {

using ::testing::IsSubstring;

constexpr char kText[] =
    "The cat sat on the mat. The cat's hat: the cat had 12345 hats, hats, hats!\n\n"
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.\r\n   \t tabs\n"
    "日本語のテキスト、日本語のテキスト。 🙂🙂🙂 the end of the text";

std::unique_ptr<Tokenizer> SmallBpe() { return *MakeBpeTokenizer(*TrainBpe(kText, 290)); }

std::vector<std::string> Tokens(const Tokenizer& tokenizer, absl::string_view text) {
  const std::vector<int32_t> ids = tokenizer.Encode(text).value();
  std::vector<std::string> tokens;
  for (const int32_t id : ids) tokens.emplace_back(tokenizer.TokenBytes(id));
  return tokens;
}

// Text of a kind per seed: any bytes, letters and spaces, one byte repeated, or cut UTF-8.
std::string RandomText(uint64_t seed) {
  const Rng rng(seed, "tokenizer_test");
  std::string text(rng.Below(0, 200), '\0');
  for (size_t i = 0; i < text.size(); ++i) {
    switch (seed % 4) {
      case 0:
        text[i] = static_cast<char>(rng.Below(i + 1, 256));
        break;
      case 1:
        text[i] = "the cat, 's\n 12"[rng.Below(i + 1, 15)];
        break;
      case 2:
        text[i] = "aZ \xff"[rng.Below(1, 4)];
        break;
      case 3:
        text[i] = kText[rng.Below(1, 40) + i % 150];
        break;
    }
  }
  return text;
}

TEST(Tokenizer, DecodingWhatWasEncodedGivesTheSameBytes) {
  const std::unique_ptr<Tokenizer> bytes = MakeByteTokenizer(), bpe = SmallBpe();
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    const std::string text = RandomText(seed);
    ASSERT_EQ(bytes->Decode(*bytes->Encode(text)), text) << seed;
    ASSERT_EQ(bpe->Decode(*bpe->Encode(text)), text) << seed;
  }
  const std::string one_piece(300000, 'h'), spaces(300000, ' ');
  EXPECT_EQ(bpe->Decode(*bpe->Encode(one_piece)), one_piece);
  EXPECT_EQ(bpe->Decode(*bpe->Encode(spaces)), spaces);
}

// The definition, slowly: learn by counting all pairs anew for each merge.
TEST(Bpe, LearnsTheMergesOfTheDefinition) {
  const std::string text = "aaab aaab ab abab caab caab ababab aaaa";
  const BpeModel model = *TrainBpe(text, 262);
  std::vector<std::vector<std::string>> pieces;  // the pattern gives "aaab", " aaab", " ab", …
  for (size_t i = 0; i < text.size(); ++i) {
    if (i == 0 || text[i] == ' ') pieces.emplace_back();
    pieces.back().push_back(text.substr(i, 1));
  }
  for (const auto& [left, right] : model.merges) {
    std::map<std::pair<std::string, std::string>, int> counts;
    for (const auto& piece : pieces)
      for (size_t i = 0; i + 1 < piece.size(); ++i) ++counts[{piece[i], piece[i + 1]}];
    const std::string a = model.tokens[left], b = model.tokens[right];
    for (const auto& [pair, count] : counts) EXPECT_GE((counts[{a, b}]), count) << a << "+" << b;
    for (auto& piece : pieces)
      for (size_t i = 0; i + 1 < piece.size(); ++i)
        if (piece[i] == a && piece[i + 1] == b) {
          piece[i] += b;
          piece.erase(piece.begin() + static_cast<long>(i) + 1);
        }
  }
  // Encoding with the merges gives the pieces that learning ended with.
  const auto tokenizer = *MakeBpeTokenizer(model);
  std::vector<std::string> want;
  for (const auto& piece : pieces) want.insert(want.end(), piece.begin(), piece.end());
  EXPECT_EQ(Tokens(*tokenizer, text), want);
}

TEST(Bpe, PiecesFollowTheSplitPattern) {
  const auto tokenizer = *MakeBpeTokenizer(*TrainBpe("ab ab ab, ab's ab's 1234 1234 1234", 261));
  const std::vector<std::string> got = Tokens(*tokenizer, "ab ab's 12345");
  // Numbers by three digits, contractions apart, a word with its space.
  EXPECT_EQ(got, (std::vector<std::string>{"ab", " ab", "'s", " ", "123", "4", "5"}));
}

TEST(Bpe, ATextTooSmallSaysHowManyTokensItGives) {
  EXPECT_EQ(TrainBpe("abab", 300).status().message(),
            "the text (4 bytes) gives 257 tokens, not 300: no further pair occurs twice; give more "
            "text or ask for at most 257 tokens");
  EXPECT_EQ(TrainBpe("abab", 255).status().message(),
            "a vocabulary of 255 tokens; from 256 (the bytes) to 1048576 are possible");
}

TEST(BpeFile, ReadsBackWhatItWrote) {
  const TemporaryFolder folder;
  const auto tokenizer = SmallBpe();
  ASSERT_TRUE(AtomicWrite(folder.path("t.json"), tokenizer->Serialize()).ok());
  const auto again = *LoadTokenizer(folder.path("t.json"));
  EXPECT_EQ(*again->Encode(kText), *tokenizer->Encode(kText));
  EXPECT_EQ(again->Serialize(), tokenizer->Serialize());
  EXPECT_EQ(again->Describe(), "byte-level BPE, 290 tokens");
  EXPECT_EQ((*LoadTokenizer("bytes"))->Describe(), "bytes, 256 tokens");
}

// A file in which `from` is replaced, and the message that reading it gives.
std::string ErrorAfter(const std::string& from, const std::string& to) {
  std::string json = WriteBpeJson(*TrainBpe("abc abc abc", 259));
  const size_t at = json.find(from);
  EXPECT_NE(at, json.npos) << from;
  json.replace(at, from.size(), to);
  return std::string(ReadBpeJson(json, "t.json").status().message());
}

TEST(BpeFile, EveryContradictionIsAnError) {
  EXPECT_EQ(ErrorAfter("\"a\": 97", "\"a\": 98"),
            "t.json, model: the id 98 belongs to two tokens, 'a' and 'b'");
  EXPECT_EQ(ErrorAfter("\"a\": 97", "\"b\": 97"), "t.json: the key 'b' is given twice");
  EXPECT_EQ(ErrorAfter("\"a\": 97", "\"a\": -1"),
            "t.json, model: the id of the token 'a' is the number -1; an integer from 0 to 258 is "
            "expected");
  EXPECT_EQ(ErrorAfter("\"a\": 97", "\"a\": 259"),
            "t.json, model: the id of the token 'a' is the number 259; an integer from 0 to 258 is "
            "expected");
  EXPECT_EQ(ErrorAfter("\"a\": 97", "\"a\": \"97\""),
            "t.json, model: the id of the token 'a' is the string '97'; an integer from 0 to 258 "
            "is expected");
  EXPECT_EQ(
      ErrorAfter("\"a\": 97", "\"a→\": 97"),
      "t.json, model: the token 'a\\xe2\\x86\\x92' holds a character that stands for no byte; "
      "only byte-level BPE can be read");
  EXPECT_EQ(ErrorAfter("\"a\": 97", "\"aa\": 97"),
            "t.json, model, merge 0: the token 'a' is not in the vocabulary");
  EXPECT_EQ(ErrorAfter("\"z\": 122", "\"zz\": 122"),
            "t.json: no token for the byte 122; a byte-level BPE has all 256");
  EXPECT_EQ(ErrorAfter("\"a\",", "\"q\","), "t.json: merge 0 makes 'qb', which is no token");
  EXPECT_EQ(ErrorAfter("[\n    \"a\",\n    \"b\"\n   ]", "7"),
            "t.json, model, merge 0: is the number 7; two tokens are expected");
  EXPECT_EQ(ErrorAfter("\"BPE\"", "\"Unigram\""),
            "t.json, model: type 'Unigram'; 'BPE' is expected");
  EXPECT_EQ(ErrorAfter("\"normalizer\": null", "\"normalizer\": {\"type\": \"NFC\"}"),
            "t.json: 'normalizer' is an object; only byte-level BPE without it can be read");
  EXPECT_PRED_FORMAT2(IsSubstring, "does not compile: missing closing parenthesis",
                      ErrorAfter("(?i:", "((?i:"));
  EXPECT_PRED_FORMAT2(IsSubstring, "t.json: not valid JSON at byte", ErrorAfter("]", ""));
  EXPECT_EQ(ErrorAfter("\"model\"", "\"modle\""),
            "t.json: the key 'model' is missing; it holds an object");
  EXPECT_EQ(LoadTokenizer("/nowhere/t.json").status().message(),
            "cannot open /nowhere/t.json: No such file or directory (ENOENT)");
}

TEST(BpeFile, EveryTruncationIsAnError) {
  const std::string json = WriteBpeJson(*TrainBpe("abc abc abc", 259));
  for (size_t n = 0; n + 2 < json.size(); n += 1 + n % 7)
    EXPECT_FALSE(ReadBpeJson(json.substr(0, n), "t.json").ok()) << n;
}

TEST(Prompt, WhatTheModelCannotReadIsAnError) {
  const auto bytes = MakeByteTokenizer();
  EXPECT_EQ(EncodePrompt(*bytes, "", 256).status().message(),
            "the prompt is empty; at least one token is needed");
  EXPECT_EQ(EncodePrompt(*bytes, "abc\xff", 256).status().message(),
            "the prompt is not valid UTF-8: byte 0xff at offset 3 begins no character");
  EXPECT_EQ(EncodePrompt(*bytes, "az", 100).status().message(),
            "token 1 of the prompt has id 122, but the model's vocabulary has 100 tokens; use the "
            "tokenizer that the model was trained with");
  EXPECT_EQ(*EncodePrompt(*bytes, "é", 256), (std::vector<int32_t>{0xc3, 0xa9}));
}

TEST(Utf8, TheTableOfUnicode) {
  for (const char* good : {"", "a", "é", "日", "🙂", "\xed\x9f\xbf", "\xf4\x8f\xbf\xbf"})
    EXPECT_EQ(ValidUtf8Prefix(good), static_cast<int64_t>(std::string(good).size())) << good;
  // A tail alone, overlong forms, surrogates, above U+10FFFF, cut characters.
  for (const char* bad : {"\x80", "\xc0\xaf", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80",
                          "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xc3",
                          "\xe6\x97", "\xf0\x9f\x99", "\xc3(", "\xff"})
    EXPECT_EQ(ValidUtf8Prefix(std::string("ab") + bad), 2) << bad;
  EXPECT_EQ(ValidUtf8Prefix(absl::string_view("\0a\xff", 3)), 2);
}

}  // namespace
}  // namespace tessera
