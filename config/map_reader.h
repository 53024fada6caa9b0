#ifndef TESSERA_CONFIG_MAP_READER_H_
#define TESSERA_CONFIG_MAP_READER_H_

#include <string>
#include <vector>

#include "config/fields.h"

namespace tessera {

// Reads a map whose keys no single struct of fields lists: a model, a layer with its one block.
// Whoever wants a key takes it; Finish() makes an error of each key that nobody took, and suggests
// among those that somebody asked for.
//
//   MapReader r(node, "layer", errors);
//   if (const ConfigNode* inner = r.Take("layers")) ...
//   r.TakeFields(options);
//   r.Finish();
class MapReader {
 public:
  // `in` names the map in errors. A node that is no map is an error here, and reads as empty.
  // `map` and `errors` must outlive the reader.
  MapReader(const ConfigNode& map, absl::string_view in, ErrorList* errors);

  const ConfigNode* Take(absl::string_view key);  // null if absent
  // The same, where its absence is an error: "f.yaml:1:1: model: expected the key 'd_model', ..."
  const ConfigNode* Require(absl::string_view key, absl::string_view what);
  // Reads the keys that the fields know, all that depend on one another in one call.
  void TakeFields(const FieldList& fields);
  // The keys not taken yet: a layer's block is the one key left.
  std::vector<const ConfigNode::Entry*> Rest() const;
  // A key that is read elsewhere.
  void Allow(absl::string_view key) { known_.emplace_back(key); }
  // `below`: maps in this one, for a key that belongs into one of them.
  void Finish(const std::vector<Field>& below = {});

 private:
  bool Known(absl::string_view key) const;

  const ConfigNode& map_;
  std::string in_;
  ErrorList* errors_;
  std::vector<std::string> known_;
};

}  // namespace tessera

#endif  // TESSERA_CONFIG_MAP_READER_H_
