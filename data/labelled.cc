#include "data/labelled.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/check.h"
#include "core/rng.h"
#include "core/status.h"
#include "data/jsonl.h"
#include "data/permutation.h"
#include "io/files.h"
#include "io/json.h"

namespace tessera {
namespace {

absl::StatusOr<std::vector<int32_t>> ReadLabels(const LabelledConfig& config) {
  TESSERA_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(config.path));
  std::vector<int32_t> labels;
  TESSERA_RETURN_IF_ERROR(
      ForEachDocument(file.bytes(), config.path, [&](const JsonlDocument& document) {
        TESSERA_ASSIGN_OR_RETURN(
            const int64_t label,
            GetInteger(document.object, config.label, 0, config.classes - 1, document.where));
        labels.push_back(static_cast<int32_t>(label));
        return absl::OkStatus();
      }));
  return labels;
}

}  // namespace

absl::StatusOr<std::unique_ptr<BatchSource>> LabelledDocuments::Open(const Dataset& data,
                                                                     const LabelledConfig& config) {
  TESSERA_ASSIGN_OR_RETURN(std::vector<int32_t> labels, ReadLabels(config));
  TESSERA_CHECK(static_cast<int64_t>(labels.size()) == data.documents(),
                "%zu labels of %ld documents", labels.size(), data.documents());
  std::unique_ptr<LabelledDocuments> source(new LabelledDocuments(data, config, std::move(labels)));
  if (source->train_documents_ == 0 && data.train_tokens() > 0)
    return absl::InvalidArgumentError(
        absl::StrCat(config.path, ": no document is left to train on; give more documents"));
  return source;
}

LabelledDocuments::LabelledDocuments(const Dataset& data, const LabelledConfig& config,
                                     std::vector<int32_t> labels)
    : data_(data), config_(config), labels_(std::move(labels)) {
  const std::span<const int64_t> begins = data.stream().document_begins();
  train_documents_ =
      std::lower_bound(begins.begin(), begins.end(), data.train().end) - begins.begin();
}

void LabelledDocuments::FillRow(int64_t document, int64_t row, Batch* batch) const {
  const std::span<const int64_t> begins = data_.stream().document_begins();
  const size_t i = static_cast<size_t>(document);
  const int64_t end = i + 1 < begins.size() ? begins[i + 1] : data_.stream().size();
  const int64_t count = std::min(batch->T, end - begins[i]), at = row * batch->T;
  data_.stream().Read(begins[i], count, batch->inputs.data() + at);
  const int64_t told = config_.at == LabelledConfig::At::kFirst ? 0 : count - 1;
  batch->targets[static_cast<size_t>(at + told)] = labels_[i];
  ++batch->target_count;
  if (config_.padding == LabelledConfig::Padding::kApart)
    for (int64_t t = count; t < batch->T; ++t)
      batch->position[static_cast<size_t>(at + t)] = static_cast<int32_t>(t - count);
}

namespace {

Batch EmptyBatch(const Dataset& data, int64_t B, int64_t T) {
  Batch batch = data.NewBatch(B, T);
  batch.position.clear();
  batch.position = Positions(batch);
  return batch;
}

}  // namespace

Batch LabelledDocuments::TrainBatch(const BatchIndex& index, int64_t B, int64_t T) const {
  Batch batch = EmptyBatch(data_, B, T);
  const int64_t first = (index.step * index.micro_batches + index.micro_batch) * B;
  for (int64_t row = 0; row < B; ++row) {
    const int64_t epoch = (first + row) / train_documents_, i = (first + row) % train_documents_;
    const Rng order(index.seed, absl::StrCat("data/documents/", epoch));
    FillRow(PermutedIndex(order, i, train_documents_), row, &batch);
  }
  return batch;
}

int64_t LabelledDocuments::ValidationBatches(int64_t B, int64_t) const {
  return (documents() - train_documents_ + B - 1) / B;
}

Batch LabelledDocuments::ValidationBatch(int64_t i, int64_t B, int64_t T,
                                         int64_t most_targets) const {
  Batch batch = EmptyBatch(data_, B, T);
  const int64_t first = train_documents_ + i * B;
  for (int64_t row = 0; row < std::min({B, documents() - first, most_targets}); ++row)
    FillRow(first + row, row, &batch);
  return batch;
}

}  // namespace tessera
