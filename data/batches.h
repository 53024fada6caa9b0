#ifndef TESSERA_DATA_BATCHES_H_
#define TESSERA_DATA_BATCHES_H_

#include <cstdint>
#include <vector>

namespace tessera {

// A place of a batch at which nothing is to be predicted.
constexpr int32_t kNoTarget = -1;

// One micro-batch: what a model reads, and what it is to say at each place.
struct Batch {
  int64_t B = 0, T = 0;
  std::vector<int32_t> inputs;   // [B,T]
  std::vector<int32_t> targets;  // [B,T], or kNoTarget
  // [B,T], tokens since the start of the token's document, or since the start of the row where that
  // is nearer: a Context's position, so that a document begins where it is 0. In batches that
  // continue one another, rows start where the first of them does. Empty for data without
  // documents.
  std::vector<int32_t> position;
  int64_t target_count = 0;  // targets that are not kNoTarget
  int64_t target_bytes = 0;  // that these decode to; counted in ValidationBatch only
};

// Which batch of a run. Together they say what it holds, whatever came before.
struct BatchIndex {
  uint64_t seed = 0;
  int64_t step = 0;
  int64_t micro_batch = 0, micro_batches = 1;  // of those that are accumulated in a step
};

// What a model is trained on: batches as pure functions of their index. The objective of the
// training is in the targets.
class BatchSource {
 public:
  virtual ~BatchSource() = default;

  virtual Batch TrainBatch(const BatchIndex& index, int64_t B, int64_t T) const = 0;

  // What is held back for validation, in a fixed order; after the first `most_targets` of a batch
  // there are none.
  virtual int64_t ValidationBatches(int64_t B, int64_t T) const = 0;
  virtual Batch ValidationBatch(int64_t i, int64_t B, int64_t T,
                                int64_t most_targets = INT64_MAX) const = 0;

  // Whether row b of a batch goes on where row b of the one before ended (of the same micro-batch
  // of the step before, in training), so that a model keeps its state between them.
  virtual bool continues() const { return false; }
};

// The places of a batch [B,T]: its own, or those of rows that are one document each.
std::vector<int32_t> Positions(const Batch& batch);

}  // namespace tessera

#endif  // TESSERA_DATA_BATCHES_H_
