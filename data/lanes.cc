#include "data/lanes.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace tessera {
namespace {

int64_t LaneLength(const Dataset::Span& part, int64_t lanes) {
  return (part.end - part.begin) / lanes;
}
// Windows of T tokens, each with a target behind it.
int64_t Windows(int64_t lane_length, int64_t T) {
  return std::max<int64_t>(0, (lane_length - 1) / T);
}

Batch EmptyBatch(const Dataset& data, int64_t B, int64_t T) {
  Batch batch = data.NewBatch(B, T);
  batch.position.assign(static_cast<size_t>(B * T), 0);
  return batch;
}

// A row: window `window` of a lane.
void FillLane(const Dataset& data, const Dataset::Span& part, int64_t lane, int64_t lane_length,
              int64_t window, int64_t row, Batch* batch) {
  const int64_t begin = part.begin + lane * lane_length;
  data.FillRow(begin + window * batch->T, begin, part.end, row, batch);
}

}  // namespace

absl::Status Lanes::Check(int64_t lanes, int64_t T) const {
  const int64_t most = (data_.train().end - data_.train().begin) / (T + 1);
  if (lanes <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "train.order: stream gives each of the ", lanes,
      " rows of a step (batch x accumulate) a part of the text of its own, of at least ", T + 1,
      " tokens, but the training part has ", data_.train_tokens(), " tokens in all: at most ", most,
      " rows. Lower train.batch or train.seq, or give more text"));
}

Batch Lanes::TrainBatch(const BatchIndex& index, int64_t B, int64_t T) const {
  const int64_t length = LaneLength(data_.train(), B * index.micro_batches);
  const int64_t window = index.step % Windows(length, T);
  Batch batch = EmptyBatch(data_, B, T);
  for (int64_t row = 0; row < B; ++row)
    FillLane(data_, data_.train(), index.micro_batch * B + row, length, window, row, &batch);
  return batch;
}

namespace {

// As many as there are rows, or as have a window.
int64_t ValidationLanes(const Dataset& data, int64_t B, int64_t T) {
  return std::clamp<int64_t>(data.val_tokens() / (T + 1), 1, B);
}

}  // namespace

int64_t Lanes::ValidationBatches(int64_t B, int64_t T) const {
  return Windows(LaneLength(data_.val(), ValidationLanes(data_, B, T)), T);
}

Batch Lanes::ValidationBatch(int64_t i, int64_t B, int64_t T, int64_t most_targets) const {
  const int64_t lanes = ValidationLanes(data_, B, T);
  const int64_t length = LaneLength(data_.val(), lanes);
  Batch batch = EmptyBatch(data_, B, T);
  for (int64_t row = 0; row < lanes; ++row)
    FillLane(data_, data_.val(), row, length, i, row, &batch);
  data_.LimitTargets(most_targets, &batch);
  return batch;
}

}  // namespace tessera
