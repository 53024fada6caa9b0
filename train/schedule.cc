#include "train/schedule.h"

#include <algorithm>
#include <cmath>

namespace tessera {

double Schedule::At(int64_t step) const {
  if (step < warmup_steps)
    return peak * static_cast<double>(step + 1) / static_cast<double>(warmup_steps);
  const double floor = peak * final_ratio;
  switch (kind) {
    case ScheduleKind::kConstant:
      return peak;
    case ScheduleKind::kCosine: {
      const double span = static_cast<double>(std::max<int64_t>(1, steps - 1 - warmup_steps));
      const double part = std::min(1.0, static_cast<double>(step - warmup_steps) / span);
      return floor + (peak - floor) * 0.5 * (1 + std::cos(3.141592653589793 * part));
    }
    case ScheduleKind::kWsd: {
      const double begin = static_cast<double>(steps) * (1 - decay_fraction);
      const double span = std::max(1.0, static_cast<double>(steps - 1) - begin);
      const double part = std::clamp((static_cast<double>(step) - begin) / span, 0.0, 1.0);
      return peak + (floor - peak) * part;
    }
  }
  return peak;
}

}  // namespace tessera
