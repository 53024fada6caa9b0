#ifndef TESSERA_ARCH_DRAW_H_
#define TESSERA_ARCH_DRAW_H_

#include <cstdint>
#include <string>

#include "arch/model_config.h"

namespace tessera {

// The layer graph as lines of text, from the tokens down to the logits: every layer with its
// formula, the keys that differ from their defaults, and its edges. Layers that repeat are drawn
// once.
std::string DrawGraph(const ModelConfig& config, int64_t vocab_size);

}  // namespace tessera

#endif  // TESSERA_ARCH_DRAW_H_
