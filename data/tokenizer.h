#ifndef TESSERA_DATA_TOKENIZER_H_
#define TESSERA_DATA_TOKENIZER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tessera {

// Text to token ids in [0, vocab_size) and back. Any bytes can be encoded, valid UTF-8 or not, and
// Decode(Encode(bytes)) == bytes. Safe to use from several threads at once.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // The ids of `text` in order, some at a time, so that those of a long text are never all in
  // memory: `put` is told them with the number of bytes that they stand for. It returns false to
  // end it there. Fails only where a pattern from a file exhausts its limits on this text.
  using Put = std::function<bool(std::span<const int32_t> ids, int64_t bytes)>;
  virtual absl::Status EncodeInto(absl::string_view text, const Put& put) const = 0;
  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text) const;

  // The bytes of one token, which may be a part of a character. Every id must be in range.
  virtual absl::string_view TokenBytes(int32_t id) const = 0;
  virtual int64_t vocab_size() const = 0;

  // Whether id = byte value for all tokens, so that a file of text is already a file of ids.
  virtual bool ids_are_bytes() const { return false; }

  // One line for people: "byte-level BPE, 4096 tokens".
  virtual std::string Describe() const = 0;

  // What LoadTokenizer would read back: "" for the byte tokenizer, which needs no file, else the
  // text of a tokenizer.json.
  virtual std::string Serialize() const = 0;

  std::string Decode(std::span<const int32_t> ids) const;
};

// Token id = byte value, 256 tokens.
std::unique_ptr<Tokenizer> MakeByteTokenizer();

// "bytes", or the path of a tokenizer.json that describes a byte-level BPE (data/bpe_file.h).
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& name);

// The id of a text that is one token, such as "<|endoftext|>"; any other is an error.
absl::StatusOr<int32_t> IdOfToken(const Tokenizer& tokenizer, absl::string_view text);

// Token ids of a prompt for a model with `model_vocab` tokens. An empty prompt is the token
// `begin`, or an error where that is -1. Errors: a prompt that is not UTF-8 (with the byte and its
// place), and an id that the model does not have.
absl::StatusOr<std::vector<int32_t>> EncodePrompt(const Tokenizer& tokenizer,
                                                  absl::string_view prompt, int64_t model_vocab,
                                                  int32_t begin = -1);

// The length of the longest prefix of `bytes` that is valid UTF-8 (Unicode 15, table 3-7: no
// overlong forms, no surrogates, nothing above U+10FFFF).
int64_t ValidUtf8Prefix(absl::string_view bytes);

}  // namespace tessera

#endif  // TESSERA_DATA_TOKENIZER_H_
