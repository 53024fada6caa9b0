#include "generate/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_format.h"
#include "core/rng.h"

namespace tessera {

absl::Status Sampling::Check() const {
  if (!(temperature >= 0 && std::isfinite(temperature)))
    return absl::InvalidArgumentError(
        absl::StrFormat("temperature %g: expected a finite number >= 0", temperature));
  if (top_k < 0)
    return absl::InvalidArgumentError(
        absl::StrFormat("top-k %d: expected a count, or 0 for all", top_k));
  if (!(top_p > 0 && top_p <= 1))
    return absl::InvalidArgumentError(
        absl::StrFormat("top-p %g: expected a probability in (0, 1]", top_p));
  if (!(min_p >= 0 && min_p <= 1))
    return absl::InvalidArgumentError(
        absl::StrFormat("min-p %g: expected a ratio in [0, 1]", min_p));
  return absl::OkStatus();
}

int32_t Sample(std::span<const float> logits, const Sampling& sampling, uint64_t index) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  // Equal logits stand in the order of their ids.
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  if (sampling.temperature == 0) return order[0];
  size_t keep = order.size();
  if (sampling.top_k > 0) keep = std::min(keep, static_cast<size_t>(sampling.top_k));
  const double best = logits[static_cast<size_t>(order[0])];
  std::vector<double> p(keep);
  double sum = 0;
  for (size_t i = 0; i < keep; ++i) {
    p[i] = std::exp((logits[static_cast<size_t>(order[i])] - best) / sampling.temperature);
    sum += p[i];
  }
  if (sampling.top_p < 1) {
    double held = 0;
    for (size_t i = 0; i < keep; ++i) {
      held += p[i] / sum;
      if (held >= sampling.top_p) {
        keep = i + 1;
        break;
      }
    }
  }
  while (keep > 1 && p[keep - 1] < sampling.min_p * p[0]) --keep;
  const double total =
      std::accumulate(p.begin(), p.begin() + static_cast<std::ptrdiff_t>(keep), 0.0);
  double left = Rng(sampling.seed, "sample").Uniform(index) * total;
  for (size_t i = 0; i + 1 < keep; ++i) {
    if (left < p[i]) return order[i];
    left -= p[i];
  }
  return order[keep - 1];
}

}  // namespace tessera
