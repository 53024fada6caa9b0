#include "data/masked.h"

#include "absl/strings/str_cat.h"

namespace tessera {

Batch MaskedTokens::TrainBatch(const BatchIndex& index, int64_t B, int64_t T) const {
  Batch batch = data_.TrainBatch(index, B, T);
  Mask(Rng(index.seed, absl::StrCat("data/masked/", index.step, "/", index.micro_batch)), &batch);
  return batch;
}

Batch MaskedTokens::ValidationBatch(int64_t i, int64_t B, int64_t T, int64_t most_targets) const {
  Batch batch = data_.ValidationBatch(i, B, T);
  Mask(Rng(0, absl::StrCat("data/masked/validation/", i)), &batch);
  data_.LimitTargets(most_targets, &batch);
  return batch;
}

void MaskedTokens::Mask(const Rng& rng, Batch* batch) const {
  batch->target_count = batch->target_bytes = 0;
  for (size_t i = 0; i < batch->inputs.size(); ++i) {
    int32_t& input = batch->inputs[i];
    int32_t& target = batch->targets[i];
    const bool told = target != kNoTarget && rng.Uniform(3 * i) < config_.rate;
    target = told ? input : kNoTarget;
    if (!told) continue;
    ++batch->target_count;
    const uint64_t tenth = rng.Below(3 * i + 1, 10);
    if (tenth < 8) input = config_.mask_token;
    if (tenth == 8)
      input = static_cast<int32_t>(rng.Below(3 * i + 2, static_cast<uint64_t>(config_.vocab)));
  }
}

}  // namespace tessera
