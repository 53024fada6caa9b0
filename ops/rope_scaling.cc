#include "ops/rope_scaling.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/check.h"

namespace tessera {
namespace {

constexpr double kTurn = 2 * std::numbers::pi;

// The pair, as a real number, that turns `turns` times within the original length.
double PairOf(double turns, const RopeScaling& s, double base, double R) {
  return R * std::log(s.original_length_tok / (turns * kTurn)) / (2 * std::log(base));
}

void Yarn(const RopeScaling& s, double base, int64_t R, RopeFrequencies& f) {
  double low = PairOf(s.beta_fast, s, base, static_cast<double>(R));
  double high = PairOf(s.beta_slow, s, base, static_cast<double>(R));
  if (s.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(R - 1));
  if (low == high) high += 0.001;
  for (size_t i = 0; i < f.radians.size(); ++i) {
    const double divided = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    f.radians[i] *= divided / s.factor + 1 - divided;
  }
  f.attention_factor = s.attention_factor > 0 ? s.attention_factor : 0.1 * std::log(s.factor) + 1;
}

void Llama3(const RopeScaling& s, RopeFrequencies& f) {
  for (double& theta : f.radians) {
    const double turns = s.original_length_tok * theta / kTurn;
    const double kept = std::clamp(
        (turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor), 0.0, 1.0);
    theta *= (1 - kept) / s.factor + kept;
  }
}

}  // namespace

RopeFrequencies ScaledRopeFrequencies(const RopeScaling& s, double base, int64_t R) {
  TESSERA_CHECK(R > 0 && R % 2 == 0, "rotary width %ld is not a positive even number", R);
  if (s.type == RopeScalingType::kNtk && R > 2) {
    base *= std::pow(s.factor, static_cast<double>(R) / static_cast<double>(R - 2));
  }
  RopeFrequencies f;
  for (int64_t i = 0; i < R / 2; ++i) {
    f.radians.push_back(std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(R)));
  }
  switch (s.type) {
    case RopeScalingType::kNone:
    case RopeScalingType::kNtk:
      break;
    case RopeScalingType::kLinear:
      for (double& theta : f.radians) theta /= s.factor;
      break;
    case RopeScalingType::kYarn:
      Yarn(s, base, R, f);
      break;
    case RopeScalingType::kLlama3:
      Llama3(s, f);
      break;
  }
  return f;
}

RopeRotation MakeRotation(const RopeFrequencies& frequencies, RopePairing pairing) {
  const int64_t pairs = static_cast<int64_t>(frequencies.radians.size());
  TESSERA_CHECK(pairs > 0 && pairs <= RopeRotation::kMaxPairs, "%ld rotary pairs", pairs);
  RopeRotation r{.R = 2 * pairs,
                 .pairing = pairing,
                 .attention_factor = static_cast<float>(frequencies.attention_factor)};
  for (int64_t i = 0; i < pairs; ++i) {
    const double turns = frequencies.radians[static_cast<size_t>(i)] / kTurn;
    r.high[i] = static_cast<float>(turns);
    r.low[i] = static_cast<float>(turns - r.high[i]);
  }
  return r;
}

}  // namespace tessera
