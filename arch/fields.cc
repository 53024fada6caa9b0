#include "arch/fields.h"

#include <charconv>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace tessera {
namespace {

std::string NumberText(double v) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof(text), v).ptr;
  return std::string(text, end);
}

ConfigNode Scalar(std::string text, bool quoted = false) {
  ConfigNode n;
  n.kind = ConfigNode::Kind::kScalar;
  n.text = std::move(text);
  n.quoted = quoted;
  return n;
}

bool IsNone(const ConfigNode& n) {
  return n.kind == ConfigNode::Kind::kScalar && !n.quoted && n.text == "none";
}

std::string Shown(const ConfigNode& n) {
  if (n.kind == ConfigNode::Kind::kScalar)
    return n.quoted ? absl::StrCat("the text \"", n.text, "\"") : absl::StrCat("'", n.text, "'");
  return n.KindName();
}

absl::Status Expected(const ConfigNode& n, absl::string_view key, absl::string_view type,
                      absl::string_view hint = "") {
  return n.Error(absl::StrCat(key, ": expected ", type, ", got ", Shown(n), hint));
}

// Decimal digits with a sign; no leading zero, no exponent.
template <class T>
bool ParseInteger(const std::string& s, T* v) {
  const size_t digits = !s.empty() && (s[0] == '-' || s[0] == '+') ? 1 : 0;
  if (s.size() > digits + 1 && s[digits] == '0') return false;
  const char* begin = s.data() + (s[0] == '+' ? 1 : 0);
  const auto [end, error] = std::from_chars(begin, s.data() + s.size(), *v);
  return error == std::errc() && end == s.data() + s.size();
}

bool ParseNumber(const std::string& s, double* v) {
  if (s.size() > 1 && s[0] == '0' && s[1] >= '0' && s[1] <= '9') return false;
  const char* begin = s.data() + (!s.empty() && s[0] == '+' ? 1 : 0);
  const auto [end, error] = std::from_chars(begin, s.data() + s.size(), *v);
  return error == std::errc() && end == s.data() + s.size() && std::isfinite(*v);
}

bool IsPlain(const ConfigNode& n) { return n.kind == ConfigNode::Kind::kScalar && !n.quoted; }

// Reads one number, or says what is wrong with it.
bool ReadInteger(const ConfigNode& n, const std::string& key, const std::string& type,
                 const Range& range, int64_t* v, ErrorList* errors) {
  int64_t parsed;
  if (!IsPlain(n) || !ParseInteger(n.text, &parsed)) {
    double number;
    const bool whole = IsPlain(n) && ParseNumber(n.text, &number) && number == std::floor(number) &&
                       std::fabs(number) < 1e15;
    errors->Add(Expected(n, key, type,
                         whole ? absl::StrFormat("; write %d", static_cast<int64_t>(number)) : ""));
    return false;
  }
  if (!range.Holds(static_cast<double>(parsed))) {
    errors->Add(Expected(n, key, type));
    return false;
  }
  *v = parsed;
  return true;
}

bool ReadDouble(const ConfigNode& n, const std::string& key, const std::string& type,
                const Range& range, double* v, ErrorList* errors) {
  double parsed;
  if (!IsPlain(n) || !ParseNumber(n.text, &parsed) || !range.Holds(parsed)) {
    errors->Add(Expected(n, key, type));
    return false;
  }
  *v = parsed;
  return true;
}

void ReadFieldsOf(const ConfigNode& map, const std::vector<Field>& fields, absl::string_view in,
                  ErrorList* errors) {
  if (map.kind == ConfigNode::Kind::kNull) return;
  if (map.kind != ConfigNode::Kind::kMap) {
    errors->Add(Expected(map, in, "a map of keys"));
    return;
  }
  std::vector<std::string> known;
  for (const Field& f : fields) known.push_back(f.key);
  for (const ConfigNode::Entry& e : map.entries) {
    const Field* field = nullptr;
    for (const Field& f : fields)
      if (f.key == e.key) field = &f;
    if (field == nullptr) {
      errors->Add(absl::InvalidArgumentError(
          absl::StrCat(e.key_where.ToString(), ": ", UnknownName("key", e.key, in, known))));
    } else if (e.value.kind == ConfigNode::Kind::kNull) {
      errors->Add(Expected(e.value, e.key, field->type));
    } else {
      field->read(e.value, errors);
    }
  }
}

}  // namespace

std::string Range::ToString() const {
  if (std::isfinite(low) && std::isfinite(high))
    return absl::StrCat(" in ", open_low ? "(" : "[", NumberText(low), ", ", NumberText(high), "]");
  if (std::isfinite(low)) return absl::StrCat(open_low ? " > " : " >= ", NumberText(low));
  if (std::isfinite(high)) return absl::StrCat(" <= ", NumberText(high));
  return "";
}

void FieldList::Add(const char* key, int64_t& v, Range range, const char* doc) {
  const std::string type = "an integer" + range.ToString();
  fields_.push_back({.key = key,
                     .type = type,
                     .doc = doc,
                     .read = [=, k = std::string(key), &v](
                                 const ConfigNode& n,
                                 ErrorList* errors) { ReadInteger(n, k, type, range, &v, errors); },
                     .print = [&v] { return Scalar(absl::StrCat(v)); }});
}

void FieldList::Add(const char* key, uint64_t& v, const char* doc) {
  const std::string type = "an integer >= 0";
  fields_.push_back({.key = key,
                     .type = type,
                     .doc = doc,
                     .read =
                         [=, k = std::string(key), &v](const ConfigNode& n, ErrorList* errors) {
                           uint64_t parsed;
                           if (IsPlain(n) && ParseInteger(n.text, &parsed)) {
                             v = parsed;
                           } else {
                             errors->Add(Expected(n, k, type));
                           }
                         },
                     .print = [&v] { return Scalar(absl::StrCat(v)); }});
}

void FieldList::Add(const char* key, double& v, Range range, const char* doc) {
  const std::string type = "a number" + range.ToString();
  fields_.push_back({.key = key,
                     .type = type,
                     .doc = doc,
                     .read = [=, k = std::string(key), &v](
                                 const ConfigNode& n,
                                 ErrorList* errors) { ReadDouble(n, k, type, range, &v, errors); },
                     .print = [&v] { return Scalar(NumberText(v)); }});
}

void FieldList::Add(const char* key, std::optional<int64_t>& v, Range range, const char* doc) {
  const std::string type = "an integer" + range.ToString() + " or none";
  fields_.push_back({.key = key,
                     .type = type,
                     .doc = doc,
                     .read =
                         [=, k = std::string(key), &v](const ConfigNode& n, ErrorList* errors) {
                           int64_t parsed;
                           if (IsNone(n)) {
                             v.reset();
                           } else if (ReadInteger(n, k, type, range, &parsed, errors)) {
                             v = parsed;
                           }
                         },
                     .print = [&v] { return Scalar(v ? absl::StrCat(*v) : "none"); }});
}

void FieldList::Add(const char* key, std::optional<double>& v, Range range, const char* doc) {
  const std::string type = "a number" + range.ToString() + " or none";
  fields_.push_back({.key = key,
                     .type = type,
                     .doc = doc,
                     .read =
                         [=, k = std::string(key), &v](const ConfigNode& n, ErrorList* errors) {
                           double parsed;
                           if (IsNone(n)) {
                             v.reset();
                           } else if (ReadDouble(n, k, type, range, &parsed, errors)) {
                             v = parsed;
                           }
                         },
                     .print = [&v] { return Scalar(v ? NumberText(*v) : "none"); }});
}

void FieldList::Add(const char* key, bool& v, const char* doc) {
  fields_.push_back({.key = key,
                     .type = "true or false",
                     .doc = doc,
                     .read =
                         [k = std::string(key), &v](const ConfigNode& n, ErrorList* errors) {
                           if (IsPlain(n) && (n.text == "true" || n.text == "false")) {
                             v = n.text == "true";
                           } else {
                             errors->Add(Expected(n, k, "true or false"));
                           }
                         },
                     .print = [&v] { return Scalar(v ? "true" : "false"); },
                     .choices = {"true", "false"}});
}

void FieldList::Add(const char* key, std::string& v, const char* doc) {
  fields_.push_back({.key = key,
                     .type = "text",
                     .doc = doc,
                     .read =
                         [k = std::string(key), &v](const ConfigNode& n, ErrorList* errors) {
                           if (n.kind == ConfigNode::Kind::kScalar) {
                             v = n.text;
                           } else {
                             errors->Add(Expected(n, k, "text"));
                           }
                         },
                     .print = [&v] { return Scalar(v, v.empty()); }});
}

void FieldList::Add(const char* key, std::vector<double>& v, Range range, const char* doc) {
  const std::string type = "a list of numbers" + range.ToString();
  fields_.push_back({.key = key,
                     .type = type,
                     .doc = doc,
                     .read =
                         [=, k = std::string(key), &v](const ConfigNode& n, ErrorList* errors) {
                           if (n.kind != ConfigNode::Kind::kList) {
                             errors->Add(Expected(n, k, type));
                             return;
                           }
                           std::vector<double> parsed(n.items.size());
                           bool ok = true;
                           for (size_t i = 0; i < parsed.size(); ++i)
                             ok = ReadDouble(n.items[i], k, type, range, &parsed[i], errors) && ok;
                           if (ok) v = parsed;
                         },
                     .print =
                         [&v] {
                           ConfigNode list;
                           list.kind = ConfigNode::Kind::kList;
                           for (const double x : v) list.items.push_back(Scalar(NumberText(x)));
                           return list;
                         }});
}

void FieldList::Choice(const char* key, const char* doc, std::vector<std::string> choices,
                       std::function<void(size_t)> set, std::function<size_t()> get) {
  const std::string type = absl::StrCat("one of ", absl::StrJoin(choices, ", "));
  fields_.push_back(
      {.key = key,
       .type = type,
       .doc = doc,
       .read =
           [=, k = std::string(key)](const ConfigNode& n, ErrorList* errors) {
             for (size_t i = 0; i < choices.size(); ++i)
               if (n.kind == ConfigNode::Kind::kScalar && n.text == choices[i]) return set(i);
             const std::string near =
                 n.kind == ConfigNode::Kind::kScalar ? Nearest(n.text, choices) : "";
             errors->Add(Expected(
                 n, k, type, near.empty() ? "" : absl::StrCat("; did you mean '", near, "'?")));
           },
       .print = [=] { return Scalar(choices[get()]); },
       .choices = choices});
}

void FieldList::Map(const char* key, const char* doc, std::vector<Field> fields) {
  fields_.push_back(
      {.key = key,
       .type = "a map",
       .doc = doc,
       .read = [k = std::string(key), fields](
                   const ConfigNode& n, ErrorList* errors) { ReadFieldsOf(n, fields, k, errors); },
       .print = [fields] { return PrintMap(fields); },
       .nested = fields});
}

void FieldList::OptionalMap(const char* key, const char* doc, std::vector<Field> fields,
                            std::function<void()> reset,
                            std::function<void(const std::function<void(FieldList&)>&)> with,
                            std::function<bool()> present) {
  // The fields handed in belong to a struct of defaults that is gone: only their names and words
  // are kept.
  for (Field& f : fields) f.read = nullptr, f.print = nullptr;
  fields_.push_back({.key = key,
                     .type = "a map or none",
                     .doc = doc,
                     .read =
                         [=, k = std::string(key)](const ConfigNode& n, ErrorList* errors) {
                           if (IsNone(n)) return reset();
                           with([&](FieldList& inner) { ReadMap(n, inner, k, errors); });
                         },
                     .print =
                         [=] {
                           ConfigNode out = Scalar("none");
                           if (present()) with([&](FieldList& inner) { out = PrintMap(inner); });
                           return out;
                         },
                     .nested = fields});
}

void ReadMap(const ConfigNode& map, const FieldList& fields, absl::string_view in,
             ErrorList* errors) {
  ReadFieldsOf(map, fields.all(), in, errors);
}

ConfigNode PrintMap(const std::vector<Field>& fields) {
  ConfigNode map;
  map.kind = ConfigNode::Kind::kMap;
  for (const Field& f : fields) map.entries.push_back({f.key, {}, f.print()});
  return map;
}

ConfigNode PrintMap(const FieldList& fields) { return PrintMap(fields.all()); }

}  // namespace tessera
