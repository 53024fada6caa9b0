#ifndef TESSERA_ARCH_TUNING_CHECK_H_
#define TESSERA_ARCH_TUNING_CHECK_H_

#include "arch/model_config.h"

namespace tessera {

// Adds an error for what `adapt`, and adapters that layers have of their own, ask of a model that
// they cannot have: a pattern that fits no projection, a rank larger than a matrix allows. `model`
// is the map that the config was read from. The config has been placed.
void CheckAdapters(const ModelConfig& config, const ConfigNode& model, ErrorList* errors);

// The same for each pattern of config.tuning.freeze that fits no parameter; `freeze` is their list.
void CheckFreeze(const ModelConfig& config, const ConfigNode& freeze, ErrorList* errors);

}  // namespace tessera

#endif  // TESSERA_ARCH_TUNING_CHECK_H_
