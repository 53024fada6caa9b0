#define PCRE2_CODE_UNIT_WIDTH 8
#include "data/split_pattern.h"

#include <pcre2.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "core/check.h"
#include "core/status.h"
#include "data/tokenizer.h"
#include "io/json.h"

namespace tessera {
namespace {

std::string Message(int error_code) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(error_code, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

// The memory of one Split: the place of the match and, for compiled code, a stack that grows.
struct Matcher {
  explicit Matcher(const pcre2_code* code)
      : match(pcre2_match_data_create_from_pattern(code, nullptr)),
        context(pcre2_match_context_create(nullptr)),
        stack(pcre2_jit_stack_create(32 << 10, 8 << 20, nullptr)) {
    TESSERA_CHECK(match != nullptr && context != nullptr, "out of memory for a split pattern");
    if (stack != nullptr) pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~Matcher() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(match);
  }
  Matcher(const Matcher&) = delete;
  Matcher& operator=(const Matcher&) = delete;

  pcre2_match_data* match;
  pcre2_match_context* context;
  pcre2_jit_stack* stack;
};

}  // namespace

struct SplitPattern::Code {
  explicit Code(pcre2_code* c) : compiled(c) {}
  ~Code() { pcre2_code_free(compiled); }
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  pcre2_code* compiled;
};

SplitPattern::SplitPattern(std::string pattern, std::unique_ptr<Code> code)
    : pattern_(std::move(pattern)), code_(std::move(code)) {}
SplitPattern::SplitPattern(SplitPattern&&) noexcept = default;
SplitPattern::~SplitPattern() = default;

absl::StatusOr<SplitPattern> SplitPattern::Compile(absl::string_view pattern) {
  int error_code = 0;
  PCRE2_SIZE error_offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error_code,
                                   &error_offset, nullptr);
  if (code == nullptr)
    return absl::InvalidArgumentError(absl::StrCat("the split pattern ", Quote(pattern),
                                                   " does not compile: ", Message(error_code),
                                                   " at byte ", error_offset));
  // Without permission to make code executable the interpreter serves; the pieces are the same.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  return SplitPattern(std::string(pattern), std::make_unique<Code>(code));
}

absl::Status SplitPattern::Split(absl::string_view text, const Piece& piece) const {
  while (!text.empty()) {
    const size_t valid = static_cast<size_t>(ValidUtf8Prefix(text));
    TESSERA_ASSIGN_OR_RETURN(const bool go, SplitValid(text.substr(0, valid), piece));
    if (!go) return absl::OkStatus();
    text.remove_prefix(valid);
    size_t invalid = 0;
    while (invalid < text.size() && ValidUtf8Prefix(text.substr(invalid, 4)) == 0) ++invalid;
    if (invalid > 0 && !piece(text.substr(0, invalid))) return absl::OkStatus();
    text.remove_prefix(invalid);
  }
  return absl::OkStatus();
}

// Whether to go on.
absl::StatusOr<bool> SplitPattern::SplitValid(absl::string_view text, const Piece& piece) const {
  const Matcher matcher(code_->compiled);
  const PCRE2_SIZE* place = pcre2_get_ovector_pointer(matcher.match);
  size_t done = 0;
  while (done < text.size()) {
    const int found =
        pcre2_match(code_->compiled, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), done,
                    PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, matcher.match, matcher.context);
    if (found == PCRE2_ERROR_NOMATCH) break;
    if (found < 0)
      return absl::InvalidArgumentError(absl::StrCat("the split pattern ", Quote(pattern_),
                                                     " gives up at byte ", done,
                                                     " of the text: ", Message(found)));
    // \K in a pattern could set the begin behind the end; such a match covers nothing.
    const size_t begin = place[0], end = place[1];
    if (begin < done || end <= begin) break;
    if (begin > done && !piece(text.substr(done, begin - done))) return false;
    if (!piece(text.substr(begin, end - begin))) return false;
    done = end;
  }
  return done == text.size() || piece(text.substr(done));
}

}  // namespace tessera
