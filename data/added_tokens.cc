#include "data/added_tokens.h"

#include <algorithm>

#include "absl/strings/match.h"

namespace tessera {

AddedTokens::AddedTokens(const std::vector<AddedToken>& tokens) : any_(!tokens.empty()) {
  for (const AddedToken& token : tokens)
    (token.normalized ? second_ : first_)[static_cast<uint8_t>(token.text[0])].push_back(token);
  for (ByFirstByte* all : {&first_, &second_})
    for (std::vector<AddedToken>& same : *all)
      std::sort(same.begin(), same.end(), [](const AddedToken& a, const AddedToken& b) {
        return a.text.size() > b.text.size();
      });
}

bool AddedTokens::Split(absl::string_view text, const Part& part) const {
  if (!any_) return text.empty() || part(text, -1);
  return SplitBy(first_, text, [&](absl::string_view between, int32_t id) {
    return id >= 0 ? part(between, id) : SplitBy(second_, between, part);
  });
}

bool AddedTokens::SplitBy(const ByFirstByte& tokens, absl::string_view text, const Part& part) {
  std::array<bool, 256> begins;
  for (size_t b = 0; b < 256; ++b) begins[b] = !tokens[b].empty();
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    if (!begins[static_cast<uint8_t>(text[at])]) {
      ++at;
      continue;
    }
    const std::vector<AddedToken>& same = tokens[static_cast<uint8_t>(text[at])];
    const auto found = std::find_if(same.begin(), same.end(), [&](const AddedToken& token) {
      return absl::StartsWith(text.substr(at), token.text);
    });
    if (found == same.end()) {
      ++at;
      continue;
    }
    if (at > done && !part(text.substr(done, at - done), -1)) return false;
    if (!part(text.substr(at, found->text.size()), found->id)) return false;
    done = at += found->text.size();
  }
  return done == text.size() || part(text.substr(done), -1);
}

}  // namespace tessera
