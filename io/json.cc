#include "io/json.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/status.h"

namespace tessera {
namespace {

using Json = nlohmann::json;

absl::Status Bad(absl::string_view where, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", what));
}

// Builds the value and stops at the first thing that a lenient reader would let pass. The open
// containers stand on a stack; `key_` is the key that waits for its value.
class StrictBuilder final : public Json::json_sax_t {
 public:
  explicit StrictBuilder(int max_depth) : max_depth_(max_depth) {}

  bool null() override { return Put(nullptr); }
  bool boolean(bool value) override { return Put(value); }
  bool number_integer(number_integer_t value) override { return Put(value); }
  bool number_unsigned(number_unsigned_t value) override { return Put(value); }
  bool number_float(number_float_t value, const string_t&) override { return Put(value); }
  bool string(string_t& value) override { return Put(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return Open(Json::object()); }
  bool start_array(std::size_t) override { return Open(Json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }

  bool key(string_t& value) override {
    if (open_.back()->contains(value)) {
      error_ = absl::StrCat("the key ", Quote(value), " is given twice");
      return false;
    }
    key_ = std::move(value);
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const Json::exception& e) override {
    // The library's text is "[json.exception…] parse error at …: syntax error while parsing … - the
    // reason".
    absl::string_view text = e.what();
    for (const absl::string_view before : {": ", " - "})
      if (const size_t at = text.find(before); at != text.npos)
        text.remove_prefix(at + before.size());
    error_ = absl::StrCat("not valid JSON at byte ", position, ": ", Quote(text));
    return false;
  }

  const std::string& error() const { return error_; }
  Json Take() { return std::move(root_); }

 private:
  Json* Add(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *open_.back();
    if (parent.is_object()) return &(parent[key_] = std::move(value));
    parent.push_back(std::move(value));
    return &parent.back();
  }
  bool Put(Json value) {
    Add(std::move(value));
    return true;
  }
  bool Open(Json container) {
    if (static_cast<int>(open_.size()) == max_depth_) {
      error_ = absl::StrCat("nested deeper than ", max_depth_, " levels");
      return false;
    }
    open_.push_back(Add(std::move(container)));
    return true;
  }
  bool Close() {
    open_.pop_back();
    return true;
  }

  int max_depth_;
  Json root_;
  std::vector<Json*> open_;
  std::string key_;
  std::string error_;
};

absl::StatusOr<const Json*> Get(const Json& object, absl::string_view key, absl::string_view where,
                                Json::value_t type, absl::string_view expected) {
  if (!object.is_object())
    return Bad(where, absl::StrCat("an object with the key '", key, "' is expected, not ",
                                   Describe(object)));
  const auto found = object.find(std::string(key));
  if (found == object.end())
    return Bad(where, absl::StrCat("the key '", key, "' is missing; it holds ", expected));
  if (found->type() != type)
    return Bad(where,
               absl::StrCat("'", key, "' is ", Describe(*found), "; ", expected, " is expected"));
  return &*found;
}

}  // namespace

absl::StatusOr<Json> ParseJson(absl::string_view text, absl::string_view where, int max_depth) {
  if (absl::StripAsciiWhitespace(text).empty())
    return Bad(where, "empty; a JSON value is expected");
  StrictBuilder builder(max_depth);
  if (!Json::sax_parse(text.begin(), text.end(), &builder)) return Bad(where, builder.error());
  return builder.Take();
}

absl::StatusOr<const Json*> GetObject(const Json& object, absl::string_view key,
                                      absl::string_view where) {
  return Get(object, key, where, Json::value_t::object, "an object");
}

absl::StatusOr<const Json*> GetArray(const Json& object, absl::string_view key,
                                     absl::string_view where) {
  return Get(object, key, where, Json::value_t::array, "an array");
}

absl::StatusOr<std::string> GetString(const Json& object, absl::string_view key,
                                      absl::string_view where) {
  TESSERA_ASSIGN_OR_RETURN(const Json* value,
                           Get(object, key, where, Json::value_t::string, "a string"));
  return value->get_ref<const std::string&>();
}

absl::StatusOr<int64_t> GetInteger(const Json& object, absl::string_view key, int64_t least,
                                   int64_t most, absl::string_view where) {
  const auto found = object.is_object() ? object.find(std::string(key)) : object.end();
  if (!object.is_object() || found == object.end())
    return Bad(where, absl::StrCat("the key '", key, "' is missing; it holds an integer"));
  return ToInteger(*found, absl::StrCat("'", key, "'"), least, most, where);
}

absl::StatusOr<int64_t> ToInteger(const Json& value, absl::string_view what, int64_t least,
                                  int64_t most, absl::string_view where) {
  const auto bad = [&] {
    return Bad(where, absl::StrCat(what, " is ", Describe(value), "; an integer from ", least,
                                   " to ", most, " is expected"));
  };
  // The library reads "-0" as a signed zero and 2^64 as a floating number; neither is an integer
  // that someone meant to write.
  if (value.is_number_unsigned()) {
    const uint64_t number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(INT64_MAX)) return bad();
    if (static_cast<int64_t>(number) < least || static_cast<int64_t>(number) > most) return bad();
    return static_cast<int64_t>(number);
  }
  if (value.is_number_integer()) {
    const int64_t number = value.get<int64_t>();
    if (number >= 0 || number < least || number > most) return bad();
    return number;
  }
  return bad();
}

absl::Status CheckKeys(const Json& object, std::initializer_list<absl::string_view> known,
                       absl::string_view where) {
  if (!object.is_object())
    return Bad(where, absl::StrCat("an object is expected, not ", Describe(object)));
  for (const auto& [key, value] : object.items())
    if (std::find(known.begin(), known.end(), absl::string_view(key)) == known.end())
      return Bad(where, absl::StrCat("unknown key ", Quote(key),
                                     " (known: ", absl::StrJoin(known, ", "), ")"));
  return absl::OkStatus();
}

std::string Describe(const Json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "an array";
  if (value.is_string())
    return absl::StrCat("the string ", Quote(value.get_ref<const std::string&>()));
  if (value.is_number()) return absl::StrCat("the number ", value.dump());
  return value.dump();
}

std::string Quote(absl::string_view text) {
  constexpr size_t kMaxShown = 80;
  const bool cut = text.size() > kMaxShown;
  return absl::StrCat("'", absl::CHexEscape(text.substr(0, kMaxShown)), cut ? "…" : "", "'");
}

}  // namespace tessera
