#ifndef TESSERA_DATA_JSONL_H_
#define TESSERA_DATA_JSONL_H_

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace tessera {

// A line of a JSONL file: an object whose `text` is a document that is not empty.
struct JsonlDocument {
  const nlohmann::json& object;
  const std::string& text;
  int64_t at;                // its first byte in the file
  const std::string& where;  // "file:line"
};

// In order. Errors: a line that is no JSON object, or has no text; what `use` returns.
absl::Status ForEachDocument(absl::string_view bytes, const std::string& path,
                             const std::function<absl::Status(const JsonlDocument&)>& use);

}  // namespace tessera

#endif  // TESSERA_DATA_JSONL_H_
