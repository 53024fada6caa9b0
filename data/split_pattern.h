#ifndef TESSERA_DATA_SPLIT_PATTERN_H_
#define TESSERA_DATA_SPLIT_PATTERN_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tessera {

// Cuts text into the pieces inside which a BPE merges, by a regular expression in the syntax of
// PCRE2 with Unicode properties; compiled to machine code where the system allows it. Concatenated,
// the pieces are the text: what no match covers is a piece of its own, and so is every run of bytes
// that is not UTF-8. Linear in the text for the patterns below; safe from several threads.
class SplitPattern {
 public:
  static absl::StatusOr<SplitPattern> Compile(absl::string_view pattern);
  ~SplitPattern();
  SplitPattern(SplitPattern&&) noexcept;

  // Calls `piece` in order, until it returns false. Fails where the pattern exhausts its limit of
  // backtracking.
  using Piece = std::function<bool(absl::string_view)>;
  absl::Status Split(absl::string_view text, const Piece& piece) const;
  const std::string& pattern() const { return pattern_; }

 private:
  struct Code;
  SplitPattern(std::string pattern, std::unique_ptr<Code> code);
  absl::StatusOr<bool> SplitValid(absl::string_view text, const Piece& piece) const;
  std::string pattern_;
  std::unique_ptr<Code> code_;
};

// The pattern that new tokenizers get: contractions, words with the space before them, numbers by
// three digits, punctuation, line ends (as published with Llama 3, after OpenAI's cl100k).
inline constexpr char kDefaultSplitPattern[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// What a tokenizer.json means by a ByteLevel pre-tokenizer of its own (GPT-2, Radford et al. 2019).
inline constexpr char kGpt2SplitPattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

}  // namespace tessera

#endif  // TESSERA_DATA_SPLIT_PATTERN_H_
