#include "arch/config.h"

#include <yaml-cpp/anchor.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/status.h"

namespace tessera {
namespace {

constexpr int kMaxDepth = 32;
constexpr size_t kMaxBytes = size_t{4} << 20;

// Builds our tree from yaml-cpp's events, which know every key, anchor, alias and tag that its node
// tree forgets.
class TreeBuilder : public YAML::EventHandler {
 public:
  explicit TreeBuilder(const std::string& file) : file_(file) {}
  ConfigNode root;
  ErrorList errors;

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (started_) throw YAML::ParserException(mark, "a second document; a config is one");
    started_ = true;
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    Refuse(mark, "", anchor);
    Place(Make(mark, ConfigNode::Kind::kNull));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    errors.Add(At(mark, "aliases (*name) are not supported; write the value out"));
    Place(Make(mark, ConfigNode::Kind::kNull));
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    Refuse(mark, tag == "!" ? "" : tag, anchor);
    ConfigNode n = Make(mark, ConfigNode::Kind::kScalar);
    n.text = value;
    n.quoted = tag == "!";
    // yaml-cpp 0.7 hands null, ~ and friends on as scalars here.
    if (!n.quoted && (value == "~" || value == "null" || value.empty()))
      n.kind = ConfigNode::Kind::kNull;
    Place(std::move(n));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Refuse(mark, tag == "?" ? "" : tag, anchor);
    Open(mark, ConfigNode::Kind::kList);
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    Refuse(mark, tag == "?" ? "" : tag, anchor);
    Open(mark, ConfigNode::Kind::kMap);
  }
  void OnMapEnd() override { Close(); }

 private:
  struct Level {
    ConfigNode node;
    bool has_key = false;
    std::string key;
    Location key_where;
  };
  Location Where(const YAML::Mark& mark) const { return {file_, mark.line + 1, mark.column + 1}; }
  absl::Status At(const YAML::Mark& mark, const std::string& what) const {
    return absl::InvalidArgumentError(absl::StrCat(Where(mark).ToString(), ": ", what));
  }
  ConfigNode Make(const YAML::Mark& mark, ConfigNode::Kind kind) const {
    ConfigNode n;
    n.kind = kind;
    n.where = Where(mark);
    return n;
  }
  void Refuse(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    if (anchor != 0) errors.Add(At(mark, "anchors (&name) are not supported; write the value out"));
    if (!tag.empty() && tag != "?")
      errors.Add(At(mark, absl::StrCat("tags (", tag, ") are not supported")));
  }
  void Open(const YAML::Mark& mark, ConfigNode::Kind kind) {
    if (levels_.size() >= kMaxDepth)
      throw YAML::ParserException(mark, absl::StrCat("nested deeper than ", kMaxDepth));
    levels_.push_back({.node = Make(mark, kind)});
  }
  void Close() {
    ConfigNode done = std::move(levels_.back().node);
    levels_.pop_back();
    Place(std::move(done));
  }
  void Place(ConfigNode n) {
    if (levels_.empty()) {
      root = std::move(n);
      return;
    }
    Level& level = levels_.back();
    if (level.node.kind == ConfigNode::Kind::kList) {
      level.node.items.push_back(std::move(n));
    } else if (!level.has_key) {
      if (n.kind != ConfigNode::Kind::kScalar)
        errors.Add(n.Error(absl::StrCat("a key must be plain text, not ", n.KindName())));
      if (n.text == "<<" && !n.quoted)
        errors.Add(n.Error("merge keys (<<) are not supported; write the keys out"));
      for (const ConfigNode::Entry& e : level.node.entries)
        if (e.key == n.text)
          errors.Add(n.Error(absl::StrCat("key '", n.text, "' is given twice; first at ",
                                          e.key_where.ToString())));
      level.key = n.text;
      level.key_where = n.where;
      level.has_key = true;
    } else {
      level.node.entries.push_back({level.key, level.key_where, std::move(n)});
      level.has_key = false;
    }
  }

  std::string file_;
  bool started_ = false;
  std::vector<Level> levels_;
};

}  // namespace

std::string Location::ToString() const {
  return line == 0 ? file : absl::StrCat(file, ":", line, ":", column);
}

const ConfigNode* ConfigNode::Find(absl::string_view key) const {
  for (const Entry& e : entries)
    if (e.key == key) return &e.value;
  return nullptr;
}

absl::Status ConfigNode::Error(absl::string_view message) const {
  return absl::InvalidArgumentError(absl::StrCat(where.ToString(), ": ", message));
}

const char* ConfigNode::KindName() const {
  switch (kind) {
    case Kind::kNull:
      return "nothing";
    case Kind::kScalar:
      return "a single value";
    case Kind::kList:
      return "a list";
    case Kind::kMap:
      return "a map";
  }
  return "";
}

absl::StatusOr<ConfigNode> ParseYaml(const std::string& text, const std::string& file) {
  if (text.size() > kMaxBytes)
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": ", text.size(), " bytes; a config has at most ", kMaxBytes));
  if (text.find('\0') != std::string::npos)
    return absl::InvalidArgumentError(absl::StrCat(file, ": a NUL byte; this is no text file"));
  TreeBuilder builder(file);
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& e) {
    const Location where{file, e.mark.line + 1, e.mark.column + 1};
    return absl::InvalidArgumentError(absl::StrCat(where.ToString(), ": ", e.msg));
  }
  TESSERA_RETURN_IF_ERROR(builder.errors.ToStatus());
  if (builder.root.where.file.empty()) builder.root.where = {file, 1, 1};
  return std::move(builder.root);
}

absl::StatusOr<ConfigNode> ReadYamlFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (file) text << file.rdbuf();
  if (!file || file.bad())
    return absl::NotFoundError(absl::StrCat(
        path, ": cannot be read as a config file; `tessera configs` lists those that come along"));
  return ParseYaml(text.str(), path);
}

std::string Nearest(absl::string_view name, const std::vector<std::string>& candidates) {
  std::string best;
  size_t limit = std::max<size_t>(2, name.size() / 3) + 1;
  for (const std::string& c : candidates) {
    std::vector<size_t> row(c.size() + 1);
    for (size_t j = 0; j <= c.size(); ++j) row[j] = j;
    for (size_t i = 1; i <= name.size(); ++i) {
      size_t diagonal = row[0];
      row[0] = i;
      for (size_t j = 1; j <= c.size(); ++j) {
        const size_t substitute = diagonal + (name[i - 1] == c[j - 1] ? 0 : 1);
        diagonal = row[j];
        row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
      }
    }
    if (row.back() < limit) {
      limit = row.back();
      best = c;
    }
  }
  return best;
}

std::string UnknownName(absl::string_view what, absl::string_view name, absl::string_view in,
                        const std::vector<std::string>& known) {
  const std::string near = Nearest(name, known);
  return absl::StrCat("unknown ", what, " '", name, "' in ", in,
                      near.empty() ? "" : absl::StrCat("; did you mean '", near, "'?"),
                      " (known: ", absl::StrJoin(known, ", "), ")");
}

void ErrorList::Add(const absl::Status& status) {
  if (!status.ok()) lines_.push_back(std::string(status.message()));
}

absl::Status ErrorList::ToStatus() const {
  return lines_.empty() ? absl::OkStatus()
                        : absl::InvalidArgumentError(absl::StrJoin(lines_, "\n"));
}

}  // namespace tessera
