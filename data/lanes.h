#ifndef TESSERA_DATA_LANES_H_
#define TESSERA_DATA_LANES_H_

#include <cstdint>

#include "absl/status/status.h"
#include "data/dataset.h"

namespace tessera {

// Next-token batches in the order of the text (Transformer-XL: Dai et al. 2019, arXiv:1901.02860,
// section 4): the tokens are cut into a lane for each row of a step, equally long, and each step
// takes the next T tokens of every lane. A lane that has no T + 1 tokens left begins anew, as a
// document does; what is left at its end is not trained.
class Lanes final : public BatchSource {
 public:
  explicit Lanes(const Dataset& data) : data_(data) {}  // which outlives it
  // Whether so many lanes have T + 1 tokens each.
  absl::Status Check(int64_t lanes, int64_t T) const;

  Batch TrainBatch(const BatchIndex& index, int64_t B, int64_t T) const override;
  // Of B lanes, or fewer where these would have no window.
  int64_t ValidationBatches(int64_t B, int64_t T) const override;
  Batch ValidationBatch(int64_t i, int64_t B, int64_t T, int64_t most_targets) const override;
  bool continues() const override { return true; }

 private:
  const Dataset& data_;
};

}  // namespace tessera

#endif  // TESSERA_DATA_LANES_H_
