#ifndef TESSERA_ARCH_TRAITS_H_
#define TESSERA_ARCH_TRAITS_H_

#include <cstdint>

#include "arch/model_config.h"

namespace tessera {

// The traits of both together: what either asks for. `why` is of the first that asks for anything.
Traits Meet(const Traits& a, const Traits& b);
// Of a block with the layers that it holds, and of a list of layers.
Traits TraitsOf(const BranchConfig& block);
Traits TraitsOf(const StackConfig& stack);

// A line, with its place, for each block that cannot be trained so: on sequences of its shape's
// max_tokens, on several documents in one, or to tell the next token, which it sees.
void CheckTraining(const StackConfig& stack, const TrainingData& data, ErrorList* errors);
// The same of the stack as a whole, for sequences that come later.
absl::Status CheckSequences(const StackConfig& stack, int64_t tokens, bool packed);
// A line, with its place, for each block without which the layers could generate.
void CheckGeneration(const StackConfig& stack, ErrorList* errors);

}  // namespace tessera

#endif  // TESSERA_ARCH_TRAITS_H_
