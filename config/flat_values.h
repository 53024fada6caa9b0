#ifndef TESSERA_CONFIG_FLAT_VALUES_H_
#define TESSERA_CONFIG_FLAT_VALUES_H_

#include <map>
#include <string>
#include <vector>

#include "config/config.h"

namespace tessera {

// Every value of a config by its path below `path`, such as model.layers[0].gla.heads, as it is
// printed; an empty list or map is a value.
std::map<std::string, std::string> FlatValues(const ConfigNode& node, const std::string& path = "");

// The keys of which two have other values, or one none, in order.
std::vector<std::string> Differences(const std::map<std::string, std::string>& was,
                                     const std::map<std::string, std::string>& is);

// "train.lr: 0.003 -> not set".
std::string Change(const std::string& key, const std::map<std::string, std::string>& was,
                   const std::map<std::string, std::string>& is);

}  // namespace tessera

#endif  // TESSERA_CONFIG_FLAT_VALUES_H_
