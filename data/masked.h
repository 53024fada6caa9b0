#ifndef TESSERA_DATA_MASKED_H_
#define TESSERA_DATA_MASKED_H_

#include <cstdint>

#include "core/rng.h"
#include "data/dataset.h"

namespace tessera {

struct MaskedConfig {
  double rate = 0.15;      // of the tokens that are to be told, in (0, 1]
  int32_t mask_token = 0;  // its id
  int64_t vocab = 0;       // ids that a token may be replaced by
};

// Masked-token batches (BERT: Devlin et al. 2018, arXiv:1810.04805, section 3.1): of the tokens of
// a dataset's batch that have a next one, a share is to be told where it stands; of these, 8 in 10
// are read as the mask, 1 in 10 as any token, and 1 as itself. Validation masks the same tokens
// whatever the run's seed.
class MaskedTokens final : public BatchSource {
 public:
  // The dataset outlives it.
  MaskedTokens(const Dataset& data, const MaskedConfig& config) : data_(data), config_(config) {}
  Batch TrainBatch(const BatchIndex& index, int64_t B, int64_t T) const override;
  int64_t ValidationBatches(int64_t B, int64_t T) const override {
    return data_.ValidationBatches(B, T);
  }
  Batch ValidationBatch(int64_t i, int64_t B, int64_t T, int64_t most_targets) const override;

 private:
  void Mask(const Rng& rng, Batch* batch) const;

  const Dataset& data_;
  MaskedConfig config_;
};

}  // namespace tessera

#endif  // TESSERA_DATA_MASKED_H_
