#ifndef TESSERA_DATA_ADDED_TOKENS_H_
#define TESSERA_DATA_ADDED_TOKENS_H_

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace tessera {

// A token that is a text as a whole, found before the text is split and merged: "<|endoftext|>".
struct AddedToken {
  int32_t id = 0;
  std::string text;
  bool special = true;  // a mark, no part of a language; only kept for other readers of the file
  // Looked for after the normaliser of the file, of which there is none here: that is, in what the
  // tokens that are not leave over.
  bool normalized = false;
};

// Finds added tokens in a text, from left to right, of those that begin at one place the longest;
// first those that are not `normalized`, then in what is between them the others. So does Hugging
// Face's tokenizers.
class AddedTokens {
 public:
  AddedTokens() = default;
  // No text is empty, none is there twice.
  explicit AddedTokens(const std::vector<AddedToken>& tokens);

  // Calls `part` in order with every part of the text: a token with its id, or what is between
  // tokens with -1, which is never empty. `part` returns false to end it there; so does Split then.
  using Part = std::function<bool(absl::string_view text, int32_t id)>;
  bool Split(absl::string_view text, const Part& part) const;

 private:
  using ByFirstByte = std::array<std::vector<AddedToken>, 256>;  // the longest first
  static bool SplitBy(const ByFirstByte& tokens, absl::string_view text, const Part& part);
  ByFirstByte first_, second_;
  bool any_ = false;
};

}  // namespace tessera

#endif  // TESSERA_DATA_ADDED_TOKENS_H_
