#ifndef TESSERA_CONFIG_SCALARS_H_
#define TESSERA_CONFIG_SCALARS_H_

#include <cstdint>
#include <string>

#include "config/fields.h"

// What a scalar of a config means. YAML's own rules read `no` as false and `010` as eight; here an
// integer is decimal digits with a sign, a truth value is true or false, a number is finite, and
// every other spelling is an error that says what to write.

namespace tessera {

// Shortest decimal text that reads back as the same double, here and in readers of YAML 1.1, which
// want a point before an exponent: 1.0e-05, 250, 0.1.
std::string NumberText(double v);

// Whether every reader of YAML, of 1.1 as well, takes the bare text for text: not on, 2024-01-01,
// 0o17, 1e3, null.
bool IsTextToAll(absl::string_view text);

// "file:3:8: heads: expected an integer >= 1, got '1e3'; write 1000"
absl::Status Expected(const ConfigNode& n, absl::string_view key, absl::string_view type,
                      absl::string_view hint = "");

// The word none, or null.
bool IsNone(const ConfigNode& n);

// `or_none` ends the type in errors: "" or " or none". Each reads one scalar into *v and marks it
// as read; or adds an error, leaves *v and returns false.
bool ReadInteger(const ConfigNode& n, absl::string_view key, const Range& range,
                 absl::string_view or_none, int64_t* v, ErrorList* errors);
bool ReadUnsigned(const ConfigNode& n, absl::string_view key, uint64_t* v, ErrorList* errors);
bool ReadNumber(const ConfigNode& n, absl::string_view key, const Range& range,
                absl::string_view or_none, double* v, ErrorList* errors);
bool ReadTruth(const ConfigNode& n, absl::string_view key, bool* v, ErrorList* errors);
bool ReadText(const ConfigNode& n, absl::string_view key, std::string* v, ErrorList* errors);

}  // namespace tessera

#endif  // TESSERA_CONFIG_SCALARS_H_
