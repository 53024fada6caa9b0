#include "arch/registry.h"

namespace tessera {

// One row a block: a name here is a key in the config. A block's file defines its row; nothing else
// names it.

extern const BlockType kAttention, kGla, kHourglass, kLinformer, kMamba2, kMegabyte,
    kMixtureOfDepths, kMlp, kMoe, kNystromformer, kRecurrent, kRecurrentMemory;

namespace {
constexpr const BlockType* kBlocks[] = {
    &kAttention,       &kGla, &kHourglass, &kLinformer,     &kMamba2,    &kMegabyte,
    &kMixtureOfDepths, &kMlp, &kMoe,       &kNystromformer, &kRecurrent, &kRecurrentMemory};
}  // namespace

std::span<const BlockType* const> AllBlocks() { return kBlocks; }

const BlockType* FindBlock(absl::string_view name) {
  for (const BlockType* type : kBlocks)
    if (name == type->name) return type;
  return nullptr;
}

}  // namespace tessera
