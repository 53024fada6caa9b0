#include <algorithm>
#include <charconv>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "config/config.h"
#include "core/status.h"

// Overrides from the command line: model.layers[1].moe.top_k=1.

namespace tessera {
namespace {

// One step of a dotted path: a key, or what stands in brackets.
struct Step {
  std::string text;
  bool index = false;
};

absl::StatusOr<std::vector<Step>> ParsePath(const std::string& path, const std::string& where) {
  std::vector<Step> steps;
  const auto bad = [&](absl::string_view why) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": ", why, "; write a path such as model.layers[1].moe.top_k"));
  };
  size_t i = 0;
  while (i < path.size()) {
    const bool index = path[i] == '[';
    const size_t begin = index ? i + 1 : i;
    const size_t end =
        index ? path.find(']', i) : std::min(path.find_first_of(".[", i), path.size());
    if (end == std::string::npos) return bad("a '[' without its ']'");
    if (end == begin) return bad(index ? "an empty index" : "an empty key");
    steps.push_back({path.substr(begin, end - begin), index});
    i = index ? end + 1 : end;
    if (i == path.size() || path[i] == '[') continue;
    if (path[i] != '.') return bad("after ']' comes '.', '[' or '='");
    if (++i == path.size()) return bad("an empty key");
  }
  if (steps.size() > static_cast<size_t>(kMaxConfigDepth))
    return bad("a path this deep leads nowhere");
  return steps;
}

void Relocate(ConfigNode* n, const std::string& where) {
  n->where = {where, 0, 0};
  for (ConfigNode& item : n->items) Relocate(&item, where);
  for (ConfigNode::Entry& e : n->entries) {
    e.key_where = {where, 0, 0};
    Relocate(&e.value, where);
  }
}

int Depth(const ConfigNode& n) {
  int below = 0;
  for (const ConfigNode& item : n.items) below = std::max(below, Depth(item));
  for (const ConfigNode::Entry& e : n.entries) below = std::max(below, Depth(e.value));
  return below + (n.kind == ConfigNode::Kind::kList || n.kind == ConfigNode::Kind::kMap ? 1 : 0);
}

// What a person finds at a place of the tree: "'attention'", "a map (keys: d_model, layers)".
std::string Contents(const ConfigNode& n) {
  std::vector<absl::string_view> keys;
  switch (n.kind) {
    case ConfigNode::Kind::kNull:
      return "nothing";
    case ConfigNode::Kind::kScalar:
      return absl::StrCat("'", n.text, "'");
    case ConfigNode::Kind::kList:
      if (n.items.empty()) return "an empty list";
      return absl::StrCat("a list, [0] to [", n.items.size() - 1, "]");
    case ConfigNode::Kind::kMap:
      for (const ConfigNode::Entry& e : n.entries) keys.push_back(e.key);
      return absl::StrCat("a map (keys: ", absl::StrJoin(keys, ", "), ")");
  }
  return "";
}

// Where a path has led so far.
struct Place {
  ConfigNode* node;
  std::string path;
  bool in_list = false;  // node is an entry of a list
};

absl::Status EnterIndex(const Step& step, const std::string& where, Place* at) {
  size_t index = 0;
  const char* end = step.text.data() + step.text.size();
  const auto parsed = std::from_chars(step.text.data(), end, index);
  const bool number = parsed.ec == std::errc() && parsed.ptr == end;
  if (at->node->kind != ConfigNode::Kind::kList || !number || index >= at->node->items.size())
    return absl::InvalidArgumentError(absl::StrCat(
        where, ": there is no [", step.text, "]: ", at->path.empty() ? "the config" : at->path,
        " is ", Contents(*at->node)));
  absl::StrAppend(&at->path, "[", index, "]");
  at->node = &at->node->items[index];
  at->in_list = true;
  return absl::OkStatus();
}

// Enters a key, adding it where there is none; `next` is the step after it, if any.
absl::Status EnterKey(const Step& step, const Step* next, const std::string& where, Place* at) {
  ConfigNode& n = *at->node;
  if (n.kind == ConfigNode::Kind::kScalar && at->in_list && n.text == step.text) {
    ConfigNode empty{.kind = ConfigNode::Kind::kMap, .where = n.where};
    ConfigNode map = empty;
    map.entries.push_back({n.text, n.where, empty});
    n = std::move(map);
  }
  if (n.kind == ConfigNode::Kind::kNull) n.kind = ConfigNode::Kind::kMap;
  if (n.kind != ConfigNode::Kind::kMap)
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": there is no key '", step.text,
                     "': ", at->path.empty() ? "the config" : at->path, " is ", Contents(n)));
  const std::string above = at->path.empty() ? "the config" : at->path;
  absl::StrAppend(&at->path, at->path.empty() ? "" : ".", step.text);
  at->in_list = false;
  for (ConfigNode::Entry& e : n.entries) {
    if (e.key != step.text) continue;
    at->node = &e.value;
    return absl::OkStatus();
  }
  if (next != nullptr && next->index)
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": there is no list ", at->path, ": ", above, " is ", Contents(n)));
  n.entries.push_back({step.text, {where, 0, 0}, ConfigNode{.where = {where, 0, 0}}});
  at->node = &n.entries.back().value;
  return absl::OkStatus();
}

// Where a comment begins in a value that is written as YAML, or npos.
size_t CommentIn(const std::string& yaml) {
  char quote = 0, before = '[';  // before: the last character that is no blank
  for (size_t i = 0; i < yaml.size(); ++i) {
    const char c = yaml[i];
    if (quote != 0) {
      if (quote == '"' && c == '\\')
        ++i;
      else if (c == quote)
        quote = 0;
    } else if ((c == '"' || c == '\'') && absl::StrContains("[{,:", before)) {
      quote = c;
    } else if (c == '#' &&
               (i == 0 || absl::ascii_isspace(static_cast<unsigned char>(yaml[i - 1])))) {
      return i;
    }
    if (!absl::ascii_isspace(static_cast<unsigned char>(c))) before = c;
  }
  return std::string::npos;
}

// The value of an assignment. A list, a map and what is quoted are YAML; anything else is taken as
// it stands, so that a path may hold whatever YAML gives a meaning to (`#`, `: `, `*`, `&`, `!`).
absl::StatusOr<ConfigNode> ParseValue(const std::string& text, const std::string& path) {
  const absl::string_view bare = absl::StripAsciiWhitespace(text);
  if (text.empty())
    return absl::InvalidArgumentError(
        absl::StrCat("no value after '='; '~", path, "' takes the key away"));
  if (bare.empty() || !absl::StrContains("[{\"'", bare[0])) {
    TESSERA_RETURN_IF_ERROR(CheckConfigText(text, "value"));
    const bool null = bare == "null" || bare == "~";
    return ConfigNode{.kind = null ? ConfigNode::Kind::kNull : ConfigNode::Kind::kScalar,
                      .text = std::string(bare),
                      .with_blanks = bare == text ? "" : text};
  }
  if (const size_t at = CommentIn(text); at != std::string::npos)
    return absl::InvalidArgumentError(
        absl::StrCat("value:1:", at + 1,
                     ": '#' begins a comment here; quote a text that holds one, as in \"a #b\""));
  absl::StatusOr<ConfigNode> parsed = ParseYaml(text, "value");
  if (!parsed.ok() && bare[0] != '{')
    return absl::InvalidArgumentError(absl::StrCat(parsed.status().message(),
                                                   "; a text that begins with ", bare.substr(0, 1),
                                                   " is written in quotes: '", path, "=\"...\"'"));
  return parsed;
}

// The last step of a path is taken out of the list or map that holds it.
absl::Status TakeAway(const Step& last, const std::string& where, Place* at) {
  Place child = *at;
  ConfigNode& n = *at->node;
  if (last.index) {
    TESSERA_RETURN_IF_ERROR(EnterIndex(last, where, &child));
    n.items.erase(n.items.begin() + (child.node - n.items.data()));
    return absl::OkStatus();
  }
  for (auto e = n.entries.begin(); e != n.entries.end(); ++e)
    if (e->key == last.text) {
      n.entries.erase(e);
      return absl::OkStatus();
    }
  return absl::InvalidArgumentError(absl::StrCat(
      where, ": there is no key '", last.text,
      "' to take away: ", at->path.empty() ? "the config" : at->path, " is ", Contents(n)));
}

}  // namespace

absl::Status Override(ConfigNode* root, const std::string& assignment) {
  const bool take_away = assignment.rfind('~', 0) == 0;
  const size_t equals = take_away ? assignment.size() : assignment.find('=');
  const std::string where = "command line: " + assignment;
  if (equals == std::string::npos || equals == 0 || (take_away && equals == 1))
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": expected key=value, such as train.lr=1e-3"));
  const std::string path = assignment.substr(take_away ? 1 : 0, equals - (take_away ? 1 : 0));
  TESSERA_ASSIGN_OR_RETURN(const std::vector<Step> steps, ParsePath(path, where));
  ConfigNode value;
  if (!take_away) {
    absl::StatusOr<ConfigNode> parsed = ParseValue(assignment.substr(equals + 1), path);
    if (!parsed.ok())
      return absl::InvalidArgumentError(absl::StrCat(where, ": ", parsed.status().message()));
    value = *std::move(parsed);
    Relocate(&value, where);
  }
  ConfigNode changed = *root;
  Place at{.node = &changed};
  const size_t entered = steps.size() - (take_away ? 1 : 0);
  for (size_t i = 0; i < entered; ++i) {
    const Step* next = i + 1 < steps.size() ? &steps[i + 1] : nullptr;
    TESSERA_RETURN_IF_ERROR(steps[i].index ? EnterIndex(steps[i], where, &at)
                                           : EnterKey(steps[i], next, where, &at));
  }
  if (take_away) {
    TESSERA_RETURN_IF_ERROR(TakeAway(steps.back(), where, &at));
  } else {
    *at.node = std::move(value);
  }
  if (Depth(changed) > kMaxConfigDepth)
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": nested deeper than ", kMaxConfigDepth));
  *root = std::move(changed);
  return absl::OkStatus();
}

}  // namespace tessera
