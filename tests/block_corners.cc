#include "arch/registry.h"
#include "tests/block_contract.h"

namespace tessera::testing {
namespace {

// Where a block's code takes another way than at its defaults. One line a corner.
const std::vector<BlockCase> kCorners = {
    {"mlp", "{activation: geglu, bias: true}"},
    {"mlp", "{activation: gelu, d_ff: 37, bias: true}"},
    {"mlp", "{activation: relu2}"},
    {"mlp", "{activation: silu, d_ff: 1}"},
};

}  // namespace

std::vector<BlockCase> AllBlockCases() {
  std::vector<BlockCase> cases;
  for (const BlockType* type : AllBlocks()) cases.push_back({type->name, "{}"});
  cases.insert(cases.end(), kCorners.begin(), kCorners.end());
  return cases;
}

}  // namespace tessera::testing
