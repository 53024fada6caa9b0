#ifndef TESSERA_ARCH_REGISTRY_H_
#define TESSERA_ARCH_REGISTRY_H_

#include <span>

#include "absl/strings/string_view.h"
#include "arch/block.h"

namespace tessera {

// Every block there is, by name.
std::span<const BlockType* const> AllBlocks();
// Null if there is none of that name.
const BlockType* FindBlock(absl::string_view name);

}  // namespace tessera

#endif  // TESSERA_ARCH_REGISTRY_H_
