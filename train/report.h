#ifndef TESSERA_TRAIN_REPORT_H_
#define TESSERA_TRAIN_REPORT_H_

#include <string>

#include "arch/cost.h"

namespace tessera {

// Writes RUN/report.html from RUN/metrics.jsonl: curves of loss and throughput, the cost of each
// layer, and the load of experts over time. One file that asks nothing of the network.
absl::Status WriteReport(const std::string& run, const ModelCost& cost);

}  // namespace tessera

#endif  // TESSERA_TRAIN_REPORT_H_
