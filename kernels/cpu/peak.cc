#include "kernels/peak.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <vector>

#include "core/parallel.h"
#include "kernels/dispatch.h"

namespace tessera {

double MeasurePeakFlops(DType compute) {
  const int64_t chunks = 4 * Threads();
  std::vector<float> sink(static_cast<size_t>(chunks));
  std::vector<int64_t> flops(static_cast<size_t>(chunks));
  double best = 0;
  for (int burst = 0; burst < 10; ++burst) {
    constexpr int64_t kRounds = 1 << 17;
    const auto start = std::chrono::steady_clock::now();
    if (compute == DType::kBF16) {
      RunOnCpu(PeakArgs<bf16>{chunks, kRounds, sink.data(), flops.data()});
    } else {
      RunOnCpu(PeakArgs<float>{chunks, kRounds, sink.data(), flops.data()});
    }
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(
        best,
        static_cast<double>(std::accumulate(flops.begin(), flops.end(), int64_t{0})) / seconds);
  }
  return best;
}

}  // namespace tessera
