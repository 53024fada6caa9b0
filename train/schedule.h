#ifndef TESSERA_TRAIN_SCHEDULE_H_
#define TESSERA_TRAIN_SCHEDULE_H_

#include <cstdint>

namespace tessera {

enum class ScheduleKind : uint8_t { kCosine, kWsd, kConstant };

// The learning rate as a function of the step alone, so that a resumed run follows the same curve.
struct Schedule {
  ScheduleKind kind = ScheduleKind::kCosine;
  double peak = 1e-3;
  double final_ratio = 0.1;     // of the peak, reached at the last step (cosine and wsd)
  int64_t warmup_steps = 0;     // linear from 0; step 0 already moves
  double decay_fraction = 0.2;  // wsd: the share of the steps, at the end, that decays
  int64_t steps = 1;

  // Step counts from 0. Cosine: Loshchilov & Hutter 2017, eq. 5, without restarts. WSD (warm-up,
  // stable, decay; Hu et al. 2024, arXiv:2404.06395): constant, then linear to the final rate.
  double At(int64_t step) const;
};

}  // namespace tessera

#endif  // TESSERA_TRAIN_SCHEDULE_H_
