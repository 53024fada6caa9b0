#include <charconv>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "arch/config.h"
#include "core/status.h"

// Overrides from the command line, and printing.

namespace tessera {
namespace {

// One step of a dotted path: a key, or an index.
struct Step {
  std::string key;
  int64_t index = -1;
};

absl::StatusOr<std::vector<Step>> ParsePath(const std::string& path, const std::string& whole) {
  std::vector<Step> steps;
  const auto bad = [&](absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat(
        "command line: ", whole, ": ", why, "; write a path such as model.layers[1].moe.top_k"));
  };
  size_t i = 0;
  while (i < path.size()) {
    if (path[i] == '[') {
      const size_t close = path.find(']', i);
      int64_t index = -1;
      const auto [end, error] =
          close == std::string::npos
              ? std::from_chars_result{nullptr, std::errc::invalid_argument}
              : std::from_chars(path.data() + i + 1, path.data() + close, index);
      if (error != std::errc() || end != path.data() + close || index < 0)
        return bad("an index is a number in brackets");
      steps.push_back({"", index});
      i = close + 1;
      if (i < path.size() && path[i] == '.') ++i;
      continue;
    }
    const size_t end = std::min(path.find_first_of(".[", i), path.size());
    if (end == i) return bad("an empty key");
    steps.push_back({path.substr(i, end - i), -1});
    i = end < path.size() && path[end] == '.' ? end + 1 : end;
  }
  if (steps.empty() || path.back() == '.') return bad("an empty key");
  return steps;
}

std::string Known(const ConfigNode& n) {
  std::vector<std::string> keys;
  for (const ConfigNode::Entry& e : n.entries) keys.push_back(e.key);
  return absl::StrJoin(keys, ", ");
}

void Relocate(ConfigNode* n, const std::string& where) {
  n->where = {where, 0, 0};
  for (ConfigNode& item : n->items) Relocate(&item, where);
  for (ConfigNode::Entry& e : n->entries) {
    e.key_where = {where, 0, 0};
    Relocate(&e.value, where);
  }
}

bool IsLeafMap(const ConfigNode& n) {
  for (const ConfigNode::Entry& e : n.entries)
    if (e.value.kind == ConfigNode::Kind::kMap || e.value.kind == ConfigNode::Kind::kList)
      return false;
  return n.entries.size() <= 6;
}

std::string Quoted(const ConfigNode& n) {
  if (n.kind == ConfigNode::Kind::kNull) return "~";
  const std::string& s = n.text;
  bool plain = !n.quoted && !s.empty() &&
               s.find_first_of(" \t\n\r\"'#:,[]{}&*!|>%@`\\") == std::string::npos &&
               s.find_first_of("-?") != 0;
  if (!n.quoted && s.size() > 1 && s[0] == '-' && s.find_first_of("0123456789.") == 1) plain = true;
  if (n.quoted || s == "~" || s == "null") plain = false;
  for (const char c : s) plain = plain && static_cast<unsigned char>(c) >= 0x20;
  if (plain) return s;
  std::string out = "\"";
  for (const char c : s) {
    if (c == '"' || c == '\\') {
      absl::StrAppend(&out, "\\", std::string(1, c));
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\r') {
      out += "\\r";
    } else if (static_cast<unsigned char>(c) < 0x20) {
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
    for (const ConfigNode& item : n.items)
      if (item.kind == ConfigNode::Kind::kMap || item.kind == ConfigNode::Kind::kList) return false;
    return true;
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

absl::Status Override(ConfigNode* root, const std::string& assignment) {
  const size_t equals = assignment.find('=');
  const std::string where = "command line: " + assignment;
  if (equals == std::string::npos || equals == 0)
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": expected key=value, such as train.lr=1e-3"));
  TESSERA_ASSIGN_OR_RETURN(const std::vector<Step> steps,
                           ParsePath(assignment.substr(0, equals), assignment));
  TESSERA_ASSIGN_OR_RETURN(ConfigNode value, ParseYaml(assignment.substr(equals + 1), where));
  if (value.kind == ConfigNode::Kind::kNull)
    return absl::InvalidArgumentError(absl::StrCat(where, ": no value after '='"));
  Relocate(&value, where);
  ConfigNode* at = root;
  std::string so_far;
  for (size_t i = 0; i < steps.size(); ++i) {
    const Step& step = steps[i];
    if (step.index >= 0) {
      if (at->kind != ConfigNode::Kind::kList)
        return absl::InvalidArgumentError(
            absl::StrCat(where, ": ", so_far, " is ", at->KindName(), ", not a list"));
      if (step.index >= static_cast<int64_t>(at->items.size()))
        return absl::InvalidArgumentError(absl::StrCat(where, ": ", so_far, " has ",
                                                       at->items.size(), " entries, [0] to [",
                                                       at->items.size() - 1, "]"));
      absl::StrAppend(&so_far, "[", step.index, "]");
      at = &at->items[static_cast<size_t>(step.index)];
      continue;
    }
    // `- attention` is short for `- attention: {}`.
    if (at->kind == ConfigNode::Kind::kScalar && i > 0 && steps[i - 1].index >= 0 &&
        at->text == step.key) {
      ConfigNode map;
      map.kind = ConfigNode::Kind::kMap;
      map.where = at->where;
      ConfigNode empty = map;
      map.entries.push_back({at->text, at->where, empty});
      *at = map;
    }
    if (at->kind == ConfigNode::Kind::kNull) at->kind = ConfigNode::Kind::kMap;
    if (at->kind != ConfigNode::Kind::kMap)
      return absl::InvalidArgumentError(absl::StrCat(where, ": ", so_far, " is ", at->KindName(),
                                                     ", so it has no key '", step.key, "'"));
    absl::StrAppend(&so_far, so_far.empty() ? "" : ".", step.key);
    ConfigNode* next = nullptr;
    for (ConfigNode::Entry& e : at->entries)
      if (e.key == step.key) next = &e.value;
    if (next == nullptr) {
      if (i + 1 < steps.size() && steps[i + 1].index >= 0)
        return absl::InvalidArgumentError(
            absl::StrCat(where, ": there is no list ", so_far, " (keys here: ", Known(*at), ")"));
      ConfigNode fresh;
      fresh.kind = i + 1 < steps.size() ? ConfigNode::Kind::kMap : ConfigNode::Kind::kNull;
      fresh.where = {where, 0, 0};
      at->entries.push_back({step.key, {where, 0, 0}, fresh});
      next = &at->entries.back().value;
    }
    at = next;
  }
  *at = std::move(value);
  return absl::OkStatus();
}

std::string PrintYaml(const ConfigNode& node) {
  if (OneLine(node)) return Flow(node) + "\n";
  std::string out;
  Block(node, 0, false, &out);
  return out;
}

}  // namespace tessera
