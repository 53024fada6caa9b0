#include "data/jsonl.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "core/status.h"
#include "io/json.h"

namespace tessera {

constexpr absl::string_view kByteOrderMark = "\xef\xbb\xbf";  // U+FEFF in UTF-8

absl::Status ForEachDocument(absl::string_view rest, const std::string& path,
                             const std::function<absl::Status(const JsonlDocument&)>& use) {
  const size_t bytes = rest.size();
  for (int64_t line = 1; !rest.empty(); ++line) {
    const int64_t at = static_cast<int64_t>(bytes - rest.size());
    const size_t end = std::min(rest.find('\n'), rest.size());
    absl::string_view row = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    absl::ConsumePrefix(&row, kByteOrderMark);  // at the start of each file that was joined to this
    row = absl::StripAsciiWhitespace(row);
    if (row.empty()) continue;
    const std::string where = absl::StrCat(path, ":", line);
    if (row[0] != '{' && row[0] != '[')
      return absl::InvalidArgumentError(
          absl::StrCat(where,
                       ": each line is a JSON object such as {\"text\": \"a document\"}, but this "
                       "one begins with ",
                       Quote(row.substr(0, 20))));
    TESSERA_ASSIGN_OR_RETURN(const nlohmann::json object, ParseJson(row, where));
    TESSERA_ASSIGN_OR_RETURN(const std::string text, GetString(object, "text", where));
    if (!text.empty()) TESSERA_RETURN_IF_ERROR(use({object, text, at, where}));
  }
  return absl::OkStatus();
}

}  // namespace tessera
