#ifndef TESSERA_TRAIN_EXPORT_H_
#define TESSERA_TRAIN_EXPORT_H_

#include <string>

#include "absl/status/status.h"
#include "arch/parameters.h"

namespace tessera {

// Adds each of the model's adapters to its weight, W + scale B A in fp32, in the host's memory.
void MergeAdapters(ParameterSet* parameters);

// Writes the model of the run `from`, its adapters merged and what it has of its base with it, as a
// run of its own into the folder `to`, which must not be there.
absl::Status ExportMerged(const std::string& from, const std::string& to);

}  // namespace tessera

#endif  // TESSERA_TRAIN_EXPORT_H_
