#include "config/flat_values.h"

#include "absl/strings/str_cat.h"

namespace tessera {
namespace {

void Flatten(const ConfigNode& node, const std::string& path,
             std::map<std::string, std::string>* values) {
  const auto below = [&](const std::string& name) {
    return path.empty() || name[0] == '[' ? path + name : path + "." + name;
  };
  if (node.kind == ConfigNode::Kind::kMap && !node.entries.empty()) {
    for (const ConfigNode::Entry& e : node.entries) Flatten(e.value, below(e.key), values);
  } else if (node.kind == ConfigNode::Kind::kList && !node.items.empty()) {
    for (size_t i = 0; i < node.items.size(); ++i)
      Flatten(node.items[i], below(absl::StrCat("[", i, "]")), values);
  } else {
    (*values)[path] = PrintYamlFlow(node);
  }
}

}  // namespace

std::map<std::string, std::string> FlatValues(const ConfigNode& node, const std::string& path) {
  std::map<std::string, std::string> values;
  Flatten(node, path, &values);
  return values;
}

std::vector<std::string> Differences(const std::map<std::string, std::string>& was,
                                     const std::map<std::string, std::string>& is) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : was)
    if (const auto now = is.find(key); now == is.end() || now->second != value) keys.push_back(key);
  for (const auto& [key, value] : is)
    if (was.count(key) == 0) keys.push_back(key);
  return keys;
}

std::string Change(const std::string& key, const std::map<std::string, std::string>& was,
                   const std::map<std::string, std::string>& is) {
  const auto text = [&](const std::map<std::string, std::string>& values) {
    const auto at = values.find(key);
    return at == values.end() ? "not set" : at->second;
  };
  return absl::StrCat(key, ": ", text(was), " -> ", text(is));
}

}  // namespace tessera
