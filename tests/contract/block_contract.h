#ifndef TESSERA_TESTS_CONTRACT_BLOCK_CONTRACT_H_
#define TESSERA_TESTS_CONTRACT_BLOCK_CONTRACT_H_

#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "arch/block.h"

// The block contract: what every registered block promises, checked with no test written for it. A
// block's corners are configs at which its code takes another way (tests/blocks/block_corners.cc).

namespace tessera::testing {

struct BlockCase {
  std::string block;   // name in the registry
  std::string config;  // YAML of its keys, {} for the defaults
  int64_t D = 64;
  // Parameters that the config leaves without an effect, as the router of a single expert.
  std::vector<std::string> idle = {};
  const BlockType* type = nullptr;  // of a block that only a test knows; null: the registry's
  std::optional<LoraConfig> lora = std::nullopt;  // adapters, which then are all that is trained
};

std::vector<BlockCase> AllBlockCases();  // the defaults of every registered block, and all corners

inline void PrintTo(const BlockCase& c, std::ostream* out) { *out << c.block << ": " << c.config; }

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_CONTRACT_BLOCK_CONTRACT_H_
