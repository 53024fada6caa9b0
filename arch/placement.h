#ifndef TESSERA_ARCH_PLACEMENT_H_
#define TESSERA_ARCH_PLACEMENT_H_

#include "arch/stack_config.h"

// Where each layer of a model stands, and whom it reads from.
//
// A layer sees the layers before it: those of its own list, and, inside of a block that holds it,
// those before that block, unless the block changes the width or length of what its layers run on.
// Nothing outside of a list sees inside. A name stands for the nearest layer that has it, so that
// each copy of a `repeat` may read from itself.

namespace tessera {

// Fills in the placement of `stack` and of the stacks inside of it. `shape` is what all blocks of
// the outermost have in common. Adds an error, with its place, for each block that does not fit
// where it stands and each name that leads nowhere.
void Place(StackConfig* stack, const BlockShape& shape, ErrorList* errors);

// The same for a block that stands alone, outside of any model, at the path `block`.
void PlaceAlone(BranchConfig* block, const BlockShape& shape, ErrorList* errors);

}  // namespace tessera

#endif  // TESSERA_ARCH_PLACEMENT_H_
