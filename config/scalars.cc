#include "config/scalars.h"

#include <charconv>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"

namespace tessera {
namespace {

bool IsPlain(const ConfigNode& n) { return n.kind == ConfigNode::Kind::kScalar && !n.quoted; }

size_t SignBytes(absl::string_view s) { return !s.empty() && (s[0] == '-' || s[0] == '+') ? 1 : 0; }

// Whether the text after the sign starts as a number must: with a digit or a point, and with no
// zero before another digit.
bool StartsWell(absl::string_view s) {
  s.remove_prefix(SignBytes(s));
  if (s.empty() || !(absl::ascii_isdigit(static_cast<unsigned char>(s[0])) || s[0] == '.'))
    return false;
  return !(s.size() > 1 && s[0] == '0' && absl::ascii_isdigit(static_cast<unsigned char>(s[1])));
}

template <class T>
bool Parse(absl::string_view s, T* v) {
  if (!StartsWell(s)) return false;
  const char* begin = s.data() + (s[0] == '+' ? 1 : 0);
  const auto [end, error] = std::from_chars(begin, s.data() + s.size(), *v);
  return error == std::errc() && end == s.data() + s.size();
}

bool ParseFinite(absl::string_view s, double* v) { return Parse(s, v) && std::isfinite(*v); }

// The decimal spelling of a number in another one (1_000, 010, 0x8, 0o10, 0b11), or "".
std::string Respelled(absl::string_view s) {
  const std::string sign(s.substr(0, SignBytes(s) == 1 && s[0] == '-' ? 1 : 0));
  s.remove_prefix(SignBytes(s));
  std::string digits = absl::StrReplaceAll(s, {{"_", ""}, {",", ""}});
  const char prefix = digits.size() > 2 && digits[0] == '0' ? digits[1] : '0';
  const int base = prefix == 'x' ? 16 : prefix == 'o' ? 8 : prefix == 'b' ? 2 : 10;
  if (base != 10) {
    int64_t v = 0;
    const char* end = digits.data() + digits.size();
    const auto parsed = std::from_chars(digits.data() + 2, end, v, base);
    return parsed.ec == std::errc() && parsed.ptr == end && v >= 0 ? absl::StrCat(sign, v) : "";
  }
  while (digits.size() > 1 && digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9')
    digits.erase(0, 1);
  double v;
  return SignBytes(digits) == 0 && ParseFinite(digits, &v) ? sign + digits : "";
}

std::string IntegerHint(const ConfigNode& n) {
  int64_t v;
  double number;
  if (n.quoted && Parse(n.text, &v)) return "; write it without quotes";
  if (!IsPlain(n)) return "";
  std::string text = n.text;
  if (!ParseFinite(text, &number)) text = Respelled(n.text);
  if (!ParseFinite(text, &number) || number != std::floor(number) || std::fabs(number) >= 1e15)
    return "";
  return absl::StrFormat("; write %d", static_cast<int64_t>(number));
}

std::string NumberHint(const ConfigNode& n) {
  double v;
  if (n.quoted && ParseFinite(n.text, &v)) return "; write it without quotes";
  if (!IsPlain(n)) return "";
  const std::string text = Respelled(n.text);
  return text.empty() ? "" : absl::StrCat("; write ", text);
}

std::string TruthHint(const ConfigNode& n) {
  if (n.kind != ConfigNode::Kind::kScalar) return "";
  const std::string s = absl::AsciiStrToLower(n.text);
  if (n.quoted && (s == "true" || s == "false")) return "; write it without quotes";
  for (const char* yes : {"yes", "on", "true", "1", "y"})
    if (s == yes) return "; write true";
  for (const char* no : {"no", "off", "false", "0", "n"})
    if (s == no) return "; write false";
  return "";
}

}  // namespace

std::string NumberText(double v) {
  char buffer[32];
  const bool whole = v == std::floor(v) && std::fabs(v) < 1e15;
  const auto end = whole
                       ? std::to_chars(buffer, buffer + sizeof buffer, v, std::chars_format::fixed)
                       : std::to_chars(buffer, buffer + sizeof buffer, v);
  std::string text(buffer, end.ptr);
  const size_t exponent = text.find('e');
  if (exponent != std::string::npos && text.find('.') == std::string::npos)
    text.insert(exponent, ".0");
  return text;
}

bool IsTextToAll(absl::string_view text) {
  if (text.empty()) return false;
  for (const char* word :
       {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none", "~", "="})
    if (absl::EqualsIgnoreCase(text, word)) return false;
  // A number, a date or a time in one of YAML's spellings; a path is none.
  const bool begins_number = absl::ascii_isdigit(static_cast<unsigned char>(text[0])) ||
                             text[0] == '+' || text[0] == '-' || text[0] == '.';
  return !begins_number || absl::StrContains(text, '/');
}

bool Range::Holds(double v) const {
  for (const double allowed : only)
    if (v == allowed) return true;
  return only.empty() && (open_low ? v > low : v >= low) && (open_high ? v < high : v <= high);
}

std::string Range::ToString() const {
  if (!only.empty())
    return absl::StrCat(", one of ", absl::StrJoin(only, ", ", [](std::string* out, double v) {
                          *out += NumberText(v);
                        }));
  const bool above = std::isfinite(low), below = std::isfinite(high);
  if (above && below)
    return absl::StrCat(" in ", open_low ? "(" : "[", NumberText(low), ", ", NumberText(high),
                        open_high ? ")" : "]");
  if (above) return absl::StrCat(open_low ? " > " : " >= ", NumberText(low));
  if (below) return absl::StrCat(open_high ? " < " : " <= ", NumberText(high));
  return "";
}

absl::Status Expected(const ConfigNode& n, absl::string_view key, absl::string_view type,
                      absl::string_view hint) {
  std::string got = n.KindName();
  if (n.kind == ConfigNode::Kind::kScalar)
    got = n.quoted ? absl::StrCat("the text \"", n.text, "\"") : absl::StrCat("'", n.text, "'");
  return n.Error(absl::StrCat(key, ": expected ", type, ", got ", got, hint));
}

bool IsNone(const ConfigNode& n) {
  return n.kind == ConfigNode::Kind::kNull ||
         (n.kind == ConfigNode::Kind::kScalar && !n.quoted && n.text == "none");
}

bool ReadInteger(const ConfigNode& n, absl::string_view key, const Range& range,
                 absl::string_view or_none, int64_t* v, ErrorList* errors) {
  n.MarkRead();
  int64_t parsed = 0;
  const bool integer = IsPlain(n) && Parse(n.text, &parsed);
  if (!integer || !range.Holds(static_cast<double>(parsed))) {
    errors->Add(Expected(n, key, absl::StrCat("an integer", range.ToString(), or_none),
                         integer ? "" : IntegerHint(n)));
    return false;
  }
  *v = parsed;
  return true;
}

bool ReadUnsigned(const ConfigNode& n, absl::string_view key, uint64_t* v, ErrorList* errors) {
  n.MarkRead();
  uint64_t parsed = 0;
  if (!IsPlain(n) || !Parse(n.text, &parsed)) {
    errors->Add(
        Expected(n, key, "an integer >= 0", IsPlain(n) && n.text[0] == '-' ? "" : IntegerHint(n)));
    return false;
  }
  *v = parsed;
  return true;
}

bool ReadNumber(const ConfigNode& n, absl::string_view key, const Range& range,
                absl::string_view or_none, double* v, ErrorList* errors) {
  n.MarkRead();
  double parsed = 0;
  const bool number = IsPlain(n) && ParseFinite(n.text, &parsed);
  if (!number || !range.Holds(parsed)) {
    errors->Add(Expected(n, key, absl::StrCat("a number", range.ToString(), or_none),
                         number ? "" : NumberHint(n)));
    return false;
  }
  *v = parsed;
  return true;
}

bool ReadTruth(const ConfigNode& n, absl::string_view key, bool* v, ErrorList* errors) {
  n.MarkRead();
  if (!IsPlain(n) || (n.text != "true" && n.text != "false")) {
    errors->Add(Expected(n, key, "true or false", TruthHint(n)));
    return false;
  }
  *v = n.text == "true";
  return true;
}

bool ReadText(const ConfigNode& n, absl::string_view key, std::string* v, ErrorList* errors) {
  n.MarkRead();
  if (n.kind != ConfigNode::Kind::kScalar) {
    errors->Add(Expected(n, key, "text"));
    return false;
  }
  *v = n.with_blanks.empty() ? n.text : n.with_blanks;
  return true;
}

}  // namespace tessera
