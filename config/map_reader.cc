#include "config/map_reader.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "config/scalars.h"

namespace tessera {

MapReader::MapReader(const ConfigNode& map, absl::string_view in, ErrorList* errors)
    : map_(map), in_(in), errors_(errors) {
  if (map.kind == ConfigNode::Kind::kMap) {
    map.read = map.entries.empty();
    return;
  }
  map.MarkRead();
  errors->Add(Expected(map, in, "a map of keys"));
}

bool MapReader::Known(absl::string_view key) const {
  return std::find(known_.begin(), known_.end(), key) != known_.end();
}

const ConfigNode* MapReader::Take(absl::string_view key) {
  if (!Known(key)) Allow(key);
  return map_.Find(key);
}

const ConfigNode* MapReader::Require(absl::string_view key, absl::string_view what) {
  const ConfigNode* found = Take(key);
  if (found == nullptr && map_.kind == ConfigNode::Kind::kMap)
    errors_->Add(map_.Error(absl::StrCat(in_, ": expected the key '", key, "': ", what)));
  return found;
}

void MapReader::TakeFields(const FieldList& fields) {
  const size_t before = errors_->size();
  for (const Field& field : fields.all())
    if (const ConfigNode* value = Take(field.key)) ReadField(*value, field, errors_);
  if (errors_->size() == before) AddDeadKeys(map_, fields.all(), errors_);
}

std::vector<const ConfigNode::Entry*> MapReader::Rest() const {
  std::vector<const ConfigNode::Entry*> rest;
  for (const ConfigNode::Entry& e : map_.entries)
    if (!Known(e.key)) rest.push_back(&e);
  return rest;
}

void MapReader::Finish(const std::vector<Field>& below) {
  for (const ConfigNode::Entry* e : Rest())
    AddUnknownKey(*e, in_, known_, PathBelow(e->key, below), errors_);
}

}  // namespace tessera
