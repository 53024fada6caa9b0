#include "data/tokenizer.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/check.h"
#include "core/status.h"
#include "data/bpe.h"
#include "data/bpe_file.h"
#include "io/json.h"

namespace tessera {
namespace {

class ByteTokenizer final : public Tokenizer {
 public:
  ByteTokenizer() {
    for (size_t i = 0; i < bytes_.size(); ++i) bytes_[i] = static_cast<char>(i);
  }

  absl::Status EncodeInto(absl::string_view text, const Put& put) const override {
    std::array<int32_t, 1 << 12> ids;
    while (!text.empty()) {
      const size_t count = std::min(ids.size(), text.size());
      for (size_t i = 0; i < count; ++i) ids[i] = static_cast<uint8_t>(text[i]);
      if (!put(std::span(ids).first(count), static_cast<int64_t>(count))) break;
      text.remove_prefix(count);
    }
    return absl::OkStatus();
  }
  absl::string_view TokenBytes(int32_t id) const override {
    TESSERA_CHECK(id >= 0 && id < vocab_size(), "token id %d of 256", id);
    return absl::string_view(&bytes_[static_cast<size_t>(id)], 1);
  }
  int64_t vocab_size() const override { return 256; }
  bool ids_are_bytes() const override { return true; }
  std::string Describe() const override { return "bytes, 256 tokens"; }
  std::string Serialize() const override { return ""; }

 private:
  std::array<char, 256> bytes_;
};

// The length of the character at the start of `s`, or 0 if it is not valid.
size_t Utf8CharacterBytes(absl::string_view s) {
  const auto at = [&](size_t i) -> unsigned {
    return i < s.size() ? static_cast<uint8_t>(s[i]) : 0u;
  };
  const auto tail = [&](size_t i) { return (at(i) & 0xc0u) == 0x80u; };
  const unsigned lead = at(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead <= 0xdf) return tail(1) ? 2 : 0;
  if ((lead & 0xf0u) == 0xe0u) {
    const unsigned least = lead == 0xe0 ? 0xa0 : 0x80, most = lead == 0xed ? 0x9f : 0xbf;
    return at(1) >= least && at(1) <= most && tail(2) ? 3 : 0;
  }
  if (lead >= 0xf0 && lead <= 0xf4) {
    const unsigned least = lead == 0xf0 ? 0x90 : 0x80, most = lead == 0xf4 ? 0x8f : 0xbf;
    return at(1) >= least && at(1) <= most && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(absl::string_view text) const {
  std::vector<int32_t> ids;
  TESSERA_RETURN_IF_ERROR(EncodeInto(text, [&](std::span<const int32_t> some, int64_t) {
    ids.insert(ids.end(), some.begin(), some.end());
    return true;
  }));
  return ids;
}

std::string Tokenizer::Decode(std::span<const int32_t> ids) const {
  std::string text;
  for (const int32_t id : ids) absl::StrAppend(&text, TokenBytes(id));
  return text;
}

std::unique_ptr<Tokenizer> MakeByteTokenizer() { return std::make_unique<ByteTokenizer>(); }

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& name) {
  if (name == "bytes") return MakeByteTokenizer();
  TESSERA_ASSIGN_OR_RETURN(const BpeModel model, ReadBpeFile(name));
  return MakeBpeTokenizer(model);
}

absl::StatusOr<int32_t> IdOfToken(const Tokenizer& tokenizer, absl::string_view text) {
  TESSERA_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, tokenizer.Encode(text));
  if (ids.size() == 1) return ids[0];
  return absl::InvalidArgumentError(absl::StrCat(Quote(text), " is ", ids.size(),
                                                 " tokens of the tokenizer (", tokenizer.Describe(),
                                                 "), where one is needed; `tessera tokenizer train "
                                                 "--special TEXT` makes a text one token"));
}

absl::StatusOr<std::vector<int32_t>> EncodePrompt(const Tokenizer& tokenizer,
                                                  absl::string_view prompt, int64_t model_vocab,
                                                  int32_t begin) {
  if (prompt.empty() && begin >= 0) return std::vector<int32_t>{begin};
  if (prompt.empty())
    return absl::InvalidArgumentError("the prompt is empty; at least one token is needed");
  const size_t valid = static_cast<size_t>(ValidUtf8Prefix(prompt));
  if (valid < prompt.size())
    return absl::InvalidArgumentError(absl::StrFormat(
        "the prompt is not valid UTF-8: byte 0x%02x at offset %d begins no character",
        static_cast<uint8_t>(prompt[valid]), valid));
  TESSERA_ASSIGN_OR_RETURN(std::vector<int32_t> ids, tokenizer.Encode(prompt));
  for (size_t i = 0; i < ids.size(); ++i)
    if (ids[i] >= model_vocab)
      return absl::InvalidArgumentError(absl::StrCat(
          "token ", i, " of the prompt has id ", ids[i], ", but the model's vocabulary has ",
          model_vocab, " tokens; use the tokenizer that the model was trained with"));
  return ids;
}

int64_t ValidUtf8Prefix(absl::string_view bytes) {
  size_t i = 0;
  while (i < bytes.size()) {
    // Most text is ASCII, eight characters of which are seen at once.
    uint64_t eight = 0x80;
    if (i + 8 <= bytes.size()) std::memcpy(&eight, bytes.data() + i, 8);
    if ((eight & 0x8080808080808080u) == 0) {
      i += 8;
      continue;
    }
    const size_t length = Utf8CharacterBytes(bytes.substr(i));
    if (length == 0) break;
    i += length;
  }
  return static_cast<int64_t>(i);
}

}  // namespace tessera
