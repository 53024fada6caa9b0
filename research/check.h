#ifndef TESSERA_RESEARCH_CHECK_H_
#define TESSERA_RESEARCH_CHECK_H_

#include "research/card.h"

namespace tessera {

// What the check of a card measures. Errors: those of its configs.
absl::StatusOr<double> Measure(const CostCheck& check);

}  // namespace tessera

#endif  // TESSERA_RESEARCH_CHECK_H_
