#ifndef TESSERA_IO_JSON_H_
#define TESSERA_IO_JSON_H_

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tessera {

// JSON read strictly. nlohmann/json alone keeps the last of two equal keys, wraps integers and
// throws; here each of these is a Status that begins with `where` (a file, or file:line).

// Parses one JSON value that fills `text`. Errors: a syntax error with its byte, text that is not
// UTF-8, a key given twice, nesting deeper than `max_depth`.
absl::StatusOr<nlohmann::json> ParseJson(absl::string_view text, absl::string_view where,
                                         int max_depth = 64);

// The value of `key` in an object, or an error that names the key and what was expected. The
// pointers stay owned by `object`.
absl::StatusOr<const nlohmann::json*> GetObject(const nlohmann::json& object, absl::string_view key,
                                                absl::string_view where);
absl::StatusOr<const nlohmann::json*> GetArray(const nlohmann::json& object, absl::string_view key,
                                               absl::string_view where);
absl::StatusOr<std::string> GetString(const nlohmann::json& object, absl::string_view key,
                                      absl::string_view where);
absl::StatusOr<int64_t> GetInteger(const nlohmann::json& object, absl::string_view key,
                                   int64_t least, int64_t most, absl::string_view where);

// A number written as an integer in [least, most]: no fraction, no exponent, no wrapping. `what`
// names it in the error.
absl::StatusOr<int64_t> ToInteger(const nlohmann::json& value, absl::string_view what,
                                  int64_t least, int64_t most, absl::string_view where);

// No other keys than these.
absl::Status CheckKeys(const nlohmann::json& object, std::initializer_list<absl::string_view> known,
                       absl::string_view where);

// "an object", "the number 3": a value in the words of an error, cut to a readable length.
std::string Describe(const nlohmann::json& value);

// Text of a file in an error: control and non-ASCII bytes escaped, cut to a readable length.
std::string Quote(absl::string_view text);

}  // namespace tessera

#endif  // TESSERA_IO_JSON_H_
