#include "arch/tuning.h"

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "core/sizes.h"

namespace tessera {
namespace {

// Whether `glob`, in which a * is any text, is the whole of `text`.
bool IsAll(absl::string_view glob, absl::string_view text) {
  const std::vector<absl::string_view> parts = absl::StrSplit(glob, '*');
  if (parts.size() == 1) return glob == text;
  if (!absl::ConsumePrefix(&text, parts.front())) return false;
  for (size_t i = 1; i + 1 < parts.size(); ++i) {
    const size_t at = text.find(parts[i]);
    if (at == text.npos) return false;
    text.remove_prefix(at + parts[i].size());
  }
  return absl::EndsWith(text, parts.back());
}

}  // namespace

bool Fits(const std::string& pattern, const std::string& name) {
  bool fits = false;
  for (absl::string_view glob : absl::StrSplit(pattern, '|')) {
    const bool left_out = absl::ConsumePrefix(&glob, "!");
    for (absl::string_view part = name;; part.remove_prefix(part.find('.') + 1)) {
      if (IsAll(glob, part)) {
        if (left_out) return false;
        fits = true;
      }
      if (part.find('.') == part.npos) break;
    }
  }
  return fits;
}

void LoraConfig::Fields(FieldList& f) {
  f.Add("rank", rank, Between(0, kMaxWidth), "of the product that is added to a weight; 0: none");
  f.Add("alpha", alpha, AnyNumber(), "the product is multiplied by alpha / rank");
  f.Add("match", match,
        "the projections that have one, by name: * is any text, | stands between alternatives, ! "
        "before one that is left out, and a name may begin at any of its parts, as in "
        "attention.*|moe.up");
}

void AdaptConfig::Fields(FieldList& f) {
  f.Add("lora", lora, "products of low rank beside weights (arXiv:2106.09685)");
}

}  // namespace tessera
