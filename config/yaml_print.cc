#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "config/config.h"

namespace tessera {
namespace {

bool IsLeafMap(const ConfigNode& n) {
  for (const ConfigNode::Entry& e : n.entries)
    if (e.value.kind == ConfigNode::Kind::kMap || e.value.kind == ConfigNode::Kind::kList)
      return false;
  return n.entries.size() <= 6;
}

// Whether the text may stand bare and still parse back as the same scalar.
bool IsPlainText(const std::string& s) {
  if (s.empty() || s == "~" || s == "null" || s == "Null" || s == "NULL" || s == "<<") return false;
  if (s[0] == '?' || s.substr(0, 3) == "---" || s.substr(0, 3) == "...") return false;
  if (s[0] == '-' && (s.size() == 1 || s.find_first_of("0123456789.") != 1)) return false;
  if (s.find_first_of("\"'#:,[]{}&*!|>%@`\\") != std::string::npos) return false;
  for (const char c : s)
    if (c <= ' ' || c >= 0x7F) return false;  // a byte of a longer character is negative
  return true;
}

std::string Quoted(const ConfigNode& n) {
  if (n.kind == ConfigNode::Kind::kNull) return "null";
  if (!n.quoted && IsPlainText(n.text)) return n.text;
  std::string out = "\"";
  for (const char c : n.text) {
    if (c == '"' || c == '\\') {
      absl::StrAppend(&out, "\\", std::string(1, c));
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      absl::StrAppend(&out, "\\x", absl::Hex(c, absl::kZeroPad2));
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string Key(const std::string& key) {
  ConfigNode n;
  n.kind = ConfigNode::Kind::kScalar;
  n.text = key;
  return Quoted(n);
}

std::string Flow(const ConfigNode& n) {
  std::vector<std::string> parts;
  switch (n.kind) {
    case ConfigNode::Kind::kMap:
      for (const ConfigNode::Entry& e : n.entries)
        parts.push_back(absl::StrCat(Key(e.key), ": ", Flow(e.value)));
      return absl::StrCat("{", absl::StrJoin(parts, ", "), "}");
    case ConfigNode::Kind::kList:
      for (const ConfigNode& item : n.items) parts.push_back(Flow(item));
      return absl::StrCat("[", absl::StrJoin(parts, ", "), "]");
    default:
      return Quoted(n);
  }
}

bool OneLine(const ConfigNode& n) {
  if (n.kind == ConfigNode::Kind::kMap)
    return n.entries.empty() || (IsLeafMap(n) && Flow(n).size() <= 90);
  if (n.kind == ConfigNode::Kind::kList) {
    if (n.items.empty()) return true;
    for (const ConfigNode& item : n.items)
      if (item.kind == ConfigNode::Kind::kMap || item.kind == ConfigNode::Kind::kList) return false;
    return Flow(n).size() <= 90;
  }
  return true;
}

void Block(const ConfigNode& n, int indent, bool first_inline, std::string* out) {
  const std::string pad(static_cast<size_t>(indent), ' ');
  bool skip_pad = first_inline;
  if (n.kind == ConfigNode::Kind::kMap) {
    for (const ConfigNode::Entry& e : n.entries) {
      absl::StrAppend(out, skip_pad ? "" : pad, Key(e.key), ":");
      skip_pad = false;
      if (OneLine(e.value)) {
        absl::StrAppend(out, " ", Flow(e.value), "\n");
      } else {
        absl::StrAppend(out, "\n");
        Block(e.value, indent + 2, false, out);
      }
    }
  } else {
    for (const ConfigNode& item : n.items) {
      absl::StrAppend(out, skip_pad ? "" : pad, "- ");
      skip_pad = false;
      if (OneLine(item)) {
        absl::StrAppend(out, Flow(item), "\n");
      } else {
        Block(item, indent + 2, true, out);
      }
    }
  }
}

}  // namespace

std::string PrintYamlFlow(const ConfigNode& node) { return Flow(node); }

std::string PrintYaml(const ConfigNode& node) {
  if (OneLine(node)) return Flow(node) + "\n";
  std::string out;
  Block(node, 0, false, &out);
  return out;
}

}  // namespace tessera
