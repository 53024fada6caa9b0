#include "generate/sampler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

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

template <class Holds>
size_t Sampler::Fewest(std::span<Candidate> candidates, double weight, Holds holds) {
  // Halves the range in which the last one must be; what is before it is known to be needed.
  constexpr size_t kSmall = 32;
  auto begin = candidates.begin(), end = candidates.end();
  while (static_cast<size_t>(end - begin) > kSmall) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end);
    double half = 0;
    for (auto c = begin; c != middle; ++c) half += c->weight;
    if (holds(half, weight)) {
      end = middle;
    } else {
      weight -= half;
      begin = middle;
    }
  }
  std::sort(begin, end);
  double sum = 0;
  for (auto c = begin; c != end; ++c) {
    sum += c->weight;
    if (holds(sum, weight)) return static_cast<size_t>(c - candidates.begin()) + 1;
  }
  return static_cast<size_t>(end - candidates.begin());  // rounding left nothing that holds it all
}

absl::StatusOr<int32_t> Sampler::Draw(std::span<const float> logits, uint64_t index) {
  size_t best = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] <= std::numeric_limits<float>::max()))
      return absl::FailedPreconditionError(absl::StrFormat(
          "the logit of token %d is %s; the model's weights or its activations have overflowed", i,
          std::isnan(logits[i]) ? "not a number" : "infinite"));
    if (logits[i] > logits[best]) best = i;
  }
  if (logits.empty() || std::isinf(logits[best]))
    return absl::FailedPreconditionError(
        absl::StrFormat("none of the %d logits is finite", logits.size()));
  if (sampling_.temperature == 0) return static_cast<int32_t>(best);

  candidates_.resize(logits.size());
  for (size_t i = 0; i < logits.size(); ++i)
    candidates_[i] = {.logit = logits[i], .id = static_cast<int32_t>(i)};
  if (sampling_.top_k > 0 && static_cast<uint64_t>(sampling_.top_k) < candidates_.size()) {
    const auto k = static_cast<std::ptrdiff_t>(sampling_.top_k);
    std::nth_element(candidates_.begin(), candidates_.begin() + k, candidates_.end());
    candidates_.resize(static_cast<size_t>(k));
  }
  const auto total = [&] {
    double sum = 0;
    for (const Candidate& c : candidates_) sum += c.weight;
    return sum;
  };
  for (Candidate& c : candidates_)
    c.weight = std::exp((static_cast<double>(c.logit) - logits[best]) / sampling_.temperature);
  if (sampling_.top_p < 1)
    candidates_.resize(Fewest(candidates_, sampling_.top_p * total(), std::greater_equal<>()));
  std::erase_if(candidates_, [&](const Candidate& c) { return c.weight < sampling_.min_p; });
  const double drawn = Rng(sampling_.seed, "sample").Uniform(index) * total();
  return candidates_[Fewest(candidates_, drawn, std::greater<>()) - 1].id;
}

}  // namespace tessera
