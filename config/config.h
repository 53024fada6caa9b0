#ifndef TESSERA_CONFIG_CONFIG_H_
#define TESSERA_CONFIG_CONFIG_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

// A config file as a tree in which everything knows where it stands. yaml-cpp parses; the rules are
// ours: no key twice, no anchors, aliases or tags, and a scalar stays text until a reader says what
// it should be.

namespace tessera {

// hybrid.yaml:9:18, or the override on the command line that put a value here.
struct Location {
  std::string file;
  int line = 0, column = 0;
  std::string ToString() const;
};

class ConfigNode {
 public:
  enum class Kind : uint8_t { kNull, kScalar, kList, kMap };
  struct Entry;

  Kind kind = Kind::kNull;
  std::string text;         // of a scalar
  std::string with_blanks;  // the same in an override that has blanks around it, else empty
  bool quoted = false;      // "8" is a string, 8 may be a number
  Location where;
  std::vector<ConfigNode> items;  // of a list
  std::vector<Entry> entries;     // of a map, in the order of the file
  mutable bool read = false;      // some reader has taken the value, see ReportUnread

  const ConfigNode* Find(absl::string_view key) const;  // null if absent or not a map
  // The text of a scalar, taken: for those who walk a tree by hand.
  const std::string& Text() const { return read = true, text; }
  void MarkRead() const;  // this node and all below it
  // An error at this place: "file:line:col: message".
  absl::Status Error(absl::string_view message) const;
  const char* KindName() const;  // "a map", "a list", ...
};

struct ConfigNode::Entry {
  std::string key;
  Location key_where;
  ConfigNode value;
};

// Parses the text of one file. All mistakes of form are in the status.
constexpr int kMaxConfigDepth = 32;
constexpr size_t kMaxConfigBytes = size_t{1} << 20;
absl::StatusOr<ConfigNode> ParseYaml(const std::string& text, const std::string& file);
absl::StatusOr<ConfigNode> ReadYamlFile(const std::string& path);
// An error with its place where the text is too long or not UTF-8.
absl::Status CheckConfigText(const std::string& text, const std::string& file);

// Applies `model.layers[1].moe.top_k=1`: replaces a value, or adds a key. A value in brackets or
// quotes is YAML, such as {mamba2: {d_state: 16}}; any other is taken as it stands. A bare
// `- attention` in a list is taken for `- attention: {}`. `~train.data.text` takes the key away, so
// that its default holds, and `~model.layers[1]` the entry of a list. After an error the tree is as
// it was.
absl::Status Override(ConfigNode* root, const std::string& assignment);

// YAML of a tree: small maps of scalars in one line, all else in blocks. Parses back to an equal
// tree.
std::string PrintYaml(const ConfigNode& node);
// The same in one line.
std::string PrintYamlFlow(const ConfigNode& node);

// The candidate most like `name`, or "" if none is near (edit distance up to a third of the name,
// at least 2, and less than its length).
std::string Nearest(absl::string_view name, const std::vector<std::string>& candidates);
// "unknown key 'haeds' in attention; did you mean 'heads'? (known: heads, kv_heads)". Where none of
// the known is near, `elsewhere`, if it is not empty, is what may be meant.
std::string UnknownName(absl::string_view what, absl::string_view name, absl::string_view in,
                        const std::vector<std::string>& known, const std::string& elsewhere = "");

// Errors of one file, gathered so that a person sees them all at once.
class ErrorList {
 public:
  void Add(const absl::Status& status);
  void Add(const ErrorList& others);
  absl::Status ToStatus() const;  // Ok, or InvalidArgument with a line each
  bool empty() const { return lines_.empty(); }
  size_t size() const { return lines_.size(); }

 private:
  std::vector<std::string> lines_;
};

// Adds an error for each value that no reader took: the last guard against a key that is known,
// accepted and without effect. Call it when all readers of a tree are done.
void ReportUnread(const ConfigNode& root, ErrorList* errors);

}  // namespace tessera

#endif  // TESSERA_CONFIG_CONFIG_H_
