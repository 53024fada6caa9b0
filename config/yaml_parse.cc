#include <yaml-cpp/anchor.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "config/config.h"
#include "core/status.h"

namespace tessera {
namespace {

constexpr size_t kMaxKeyBytes = 256;

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
    absl::flat_hash_map<std::string, Location> seen;
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
    if (static_cast<int>(levels_.size()) >= kMaxConfigDepth)
      throw YAML::ParserException(mark, absl::StrCat("nested deeper than ", kMaxConfigDepth));
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
      PlaceKey(n, &level);
    } else {
      level.node.entries.push_back({level.key, level.key_where, std::move(n)});
      level.has_key = false;
    }
  }
  void PlaceKey(const ConfigNode& n, Level* level) {
    if (n.kind != ConfigNode::Kind::kScalar)
      errors.Add(n.Error(absl::StrCat("a key must be plain text, not ", n.KindName())));
    if (n.text == "<<" && !n.quoted)
      errors.Add(n.Error("merge keys (<<) are not supported; write the keys out"));
    if (n.text.size() > kMaxKeyBytes)
      errors.Add(
          n.Error(absl::StrCat("a key of ", n.text.size(), " bytes; at most ", kMaxKeyBytes)));
    const auto [first, fresh] = level->seen.try_emplace(n.text, n.where);
    if (!fresh)
      errors.Add(n.Error(
          absl::StrCat("key '", n.text, "' is given twice; first at ", first->second.ToString())));
    level->key = n.text;
    level->key_where = n.where;
    level->has_key = true;
  }

  std::string file_;
  bool started_ = false;
  std::vector<Level> levels_;
};

// The length of the UTF-8 character at text[i], or 0 if there is none.
size_t CharacterBytes(const std::string& text, size_t i) {
  const auto byte = [&](size_t k) {
    return static_cast<unsigned char>(k < text.size() ? text[k] : 0);
  };
  const unsigned char first = byte(i);
  if (first < 0x80) return first == 0 ? 0 : 1;
  const size_t bytes = first >= 0xC2 && first < 0xE0   ? 2
                       : first >= 0xE0 && first < 0xF0 ? 3
                       : first >= 0xF0 && first < 0xF5 ? 4
                                                       : 0;
  for (size_t k = 1; k < bytes; ++k)
    if ((byte(i + k) & 0xC0) != 0x80) return 0;
  const bool overlong =
      (first == 0xE0 && byte(i + 1) < 0xA0) || (first == 0xF0 && byte(i + 1) < 0x90);
  const bool surrogate = first == 0xED && byte(i + 1) >= 0xA0;
  return overlong || surrogate || (first == 0xF4 && byte(i + 1) >= 0x90) ? 0 : bytes;
}

// What yaml-cpp's words most often mean.
absl::string_view Advice(absl::string_view message) {
  if (message == "illegal map value")
    return " (a ':' that starts no value: check the indentation, or quote the text)";
  if (message == "end of map flow not found") return " (a '{' without its '}', or a missing comma)";
  if (message == "end of sequence flow not found")
    return " (a '[' without its ']', or a missing comma)";
  if (message == "end of map not found" || message == "end of sequence not found")
    return " (check the indentation of this line)";
  return "";
}

}  // namespace

// yaml-cpp replaces bytes that it cannot read; here they are a mistake with a place.
absl::Status CheckConfigText(const std::string& text, const std::string& file) {
  if (text.size() > kMaxConfigBytes)
    return absl::InvalidArgumentError(
        absl::StrCat(file, ":1:1: more than ", kMaxConfigBytes, " bytes; this is no config"));
  Location where{file, 1, 1};
  for (size_t i = 0; i < text.size();) {
    const size_t bytes = CharacterBytes(text, i);
    if (bytes == 0)
      return absl::InvalidArgumentError(absl::StrFormat("%s: byte 0x%02x: expected UTF-8 text",
                                                        where.ToString(),
                                                        static_cast<unsigned char>(text[i])));
    where.column = text[i] == '\n' ? 1 : where.column + 1;
    where.line += text[i] == '\n' ? 1 : 0;
    i += bytes;
  }
  return absl::OkStatus();
}

absl::StatusOr<ConfigNode> ParseYaml(const std::string& text, const std::string& file) {
  TESSERA_RETURN_IF_ERROR(CheckConfigText(text, file));
  TreeBuilder builder(file);
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& e) {
    const Location where{file, std::max(e.mark.line, 0) + 1, std::max(e.mark.column, 0) + 1};
    return absl::InvalidArgumentError(absl::StrCat(where.ToString(), ": ", e.msg, Advice(e.msg)));
  } catch (const std::exception& e) {
    return absl::InvalidArgumentError(absl::StrCat(file, ":1:1: cannot be parsed: ", e.what()));
  }
  TESSERA_RETURN_IF_ERROR(builder.errors.ToStatus());
  if (builder.root.where.file.empty()) builder.root.where = {file, 1, 1};
  return std::move(builder.root);
}

absl::StatusOr<ConfigNode> ReadYamlFile(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored))
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": a directory; expected a config file such as configs/quickstart.yaml"));
  if (path.find('\n') != std::string::npos)
    return absl::InvalidArgumentError(absl::StrCat(
        "expected the name of a config file, got text of several lines that begins '",
        path.substr(0, std::min<size_t>(path.find('\n'), 60)), "'; write it to a file first"));
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    const int error = errno;
    return absl::NotFoundError(
        absl::StrCat(path.size() > 200 ? path.substr(0, 200) + "..." : path, ": cannot be opened (",
                     strerror(error), ")",
                     error == ENOENT         ? "; `tessera configs` lists those that come along"
                     : error == ENAMETOOLONG ? "; a config is given by the name of its file"
                                             : ""));
  }
  std::string text(kMaxConfigBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad()) return absl::InternalError(absl::StrCat(path, ": ", strerror(errno)));
  text.resize(static_cast<size_t>(file.gcount()));
  return ParseYaml(text, path);
}

}  // namespace tessera
