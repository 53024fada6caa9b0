#ifndef TESSERA_DATA_LABELLED_H_
#define TESSERA_DATA_LABELLED_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/dataset.h"

namespace tessera {

struct LabelledConfig {
  std::string path;   // of the JSONL file that the dataset was read from
  std::string label;  // the key of an integer in each object
  int64_t classes = 2;
  enum class At : uint8_t { kFirst, kLast } at = At::kLast;  // the token that tells the class
  // What a document shorter than its row is followed by: tokens apart from it, as of another
  // document, or tokens of its own, which a model sees that cannot keep documents apart.
  enum class Padding : uint8_t { kApart, kSeen } padding = Padding::kApart;
};

// Batches for the classification of documents: a row is one, cut to T tokens or padded with id 0,
// and has one target, its label. An epoch takes each document once, in a random order.
class LabelledDocuments final : public BatchSource {
 public:
  // The dataset outlives it. Errors: a label that is missing, or not in [0, classes), with its
  // line; a part of the data without documents.
  static absl::StatusOr<std::unique_ptr<BatchSource>> Open(const Dataset& data,
                                                           const LabelledConfig& config);
  Batch TrainBatch(const BatchIndex& index, int64_t B, int64_t T) const override;
  int64_t ValidationBatches(int64_t B, int64_t T) const override;
  Batch ValidationBatch(int64_t i, int64_t B, int64_t T, int64_t most_targets) const override;

 private:
  LabelledDocuments(const Dataset& data, const LabelledConfig& config, std::vector<int32_t> labels);
  int64_t documents() const { return static_cast<int64_t>(labels_.size()); }
  void FillRow(int64_t document, int64_t row, Batch* batch) const;

  const Dataset& data_;
  LabelledConfig config_;
  std::vector<int32_t> labels_;  // by document
  int64_t train_documents_;
};

}  // namespace tessera

#endif  // TESSERA_DATA_LABELLED_H_
