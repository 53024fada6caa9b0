#include "data/dataset.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/check.h"
#include "core/rng.h"
#include "core/status.h"
#include "data/permutation.h"

namespace tessera {
namespace {

absl::StatusOr<TokenStream> OpenStream(const DataConfig& config, const Tokenizer& tokenizer,
                                       const DataListener& listener) {
  switch (config.format) {
    case DataConfig::Format::kText:
      return OpenText(config.path, config.documents, tokenizer, listener);
    case DataConfig::Format::kJsonl:
      return OpenJsonl(config.path, config.documents, tokenizer, listener);
    case DataConfig::Format::kTokens:
      return OpenTokens(config.path, config.tokens, tokenizer);
  }
  return absl::InternalError("unknown data format");
}

// Where the validation part begins: at its share of the tokens or, so that no document is in both
// parts, at the document nearest to there that is not the first.
int64_t SplitPoint(const TokenStream& stream, double val_fraction) {
  const int64_t n = stream.size();
  const int64_t held_back = static_cast<int64_t>(static_cast<double>(n) * val_fraction);
  if (held_back == 0 || held_back == n) return n - held_back;
  const int64_t wanted = n - held_back;
  int64_t nearest = -1;
  for (const int64_t begin : stream.document_begins())
    if (begin > 0 && (nearest < 0 || std::abs(begin - wanted) < std::abs(nearest - wanted)))
      nearest = begin;
  return nearest < 0 ? wanted : nearest;
}

absl::Status CheckLength(const DataConfig& config, int64_t train, int64_t val, int64_t T) {
  if (train == 0 && val < T + 1)
    return absl::InvalidArgumentError(
        absl::StrCat(config.path, ": the file has ", val, " tokens, but one sequence of ", T,
                     " needs ", T + 1, "; give more text or a shorter sequence"));
  const auto too_short = [&](absl::string_view part, int64_t tokens) {
    return absl::InvalidArgumentError(absl::StrCat(
        config.path, ": the ", part, " part has ", tokens, " tokens of the ", train + val,
        " in the file, but one sequence of ", T, " needs ", T + 1,
        "; give more text, shorten train.seq or change val_fraction (", config.val_fraction, ")"));
  };
  if (train > 0 && train < T + 1) return too_short("training", train);
  if (config.val_fraction > 0 && val < T + 1) return too_short("validation", val);
  return absl::OkStatus();
}

// Documents of one token each, whose ends nothing announces, leave no target in [begin, end), a
// loss of 0 that no model earned.
absl::Status CheckTargets(const DataConfig& config, absl::string_view part,
                          const TokenStream& stream, int64_t begin, int64_t end) {
  const std::span<const int64_t> begins = stream.document_begins();
  const auto documents = std::upper_bound(begins.begin(), begins.end(), end - 1) -
                         std::upper_bound(begins.begin(), begins.end(), begin);
  if (end - begin < 2 || documents < end - 1 - begin) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(config.path, ": the ", part, " has ", end - begin,
                                                 " documents of one token each, so no token has a "
                                                 "next one to predict; give longer documents"));
}

double BytesPerToken(const TokenStream& stream, const Tokenizer& tokenizer) {
  if (tokenizer.ids_are_bytes()) return 1;
  std::vector<int32_t> ids(static_cast<size_t>(std::min<int64_t>(stream.size(), 1 << 20)));
  stream.Read(stream.size() - static_cast<int64_t>(ids.size()), static_cast<int64_t>(ids.size()),
              ids.data());
  int64_t bytes = 0;
  for (const int32_t id : ids) bytes += static_cast<int64_t>(tokenizer.TokenBytes(id).size());
  return static_cast<double>(bytes) / static_cast<double>(ids.size());
}

}  // namespace

absl::StatusOr<int32_t> DocumentToken(const DataConfig& config, const Tokenizer& tokenizer) {
  if (config.format == DataConfig::Format::kTokens)
    return static_cast<int32_t>(std::min<int64_t>(config.tokens.document_id, INT32_MAX));
  if (config.documents.token.empty()) return -1;
  return IdOfToken(tokenizer, config.documents.token);
}

Dataset::Dataset(TokenStream stream, std::shared_ptr<const Tokenizer> tokenizer,
                 int64_t train_tokens, bool documents_announced)
    : stream_(std::move(stream)),
      tokenizer_(std::move(tokenizer)),
      train_tokens_(train_tokens),
      documents_announced_(documents_announced),
      bytes_per_token_(BytesPerToken(stream_, *tokenizer_)) {}

absl::StatusOr<Dataset> Dataset::Open(const DataConfig& config,
                                      std::shared_ptr<const Tokenizer> tokenizer, int64_t T,
                                      const DataListener& listener) {
  if (!(config.val_fraction >= 0 && config.val_fraction <= 0.5) && config.val_fraction != 1)
    return absl::InvalidArgumentError(
        absl::StrCat("val_fraction = ", config.val_fraction, "; from 0 to 0.5 is possible"));
  TESSERA_ASSIGN_OR_RETURN(TokenStream stream, OpenStream(config, *tokenizer, listener));
  const int64_t train_tokens = SplitPoint(stream, config.val_fraction);
  TESSERA_RETURN_IF_ERROR(CheckLength(config, train_tokens, stream.size() - train_tokens, T));
  const bool documents_announced =
      config.format == DataConfig::Format::kTokens || !config.documents.token.empty();
  if (!documents_announced) {
    TESSERA_RETURN_IF_ERROR(CheckTargets(config, "training part", stream, 0, train_tokens));
    TESSERA_RETURN_IF_ERROR(CheckTargets(config, train_tokens == 0 ? "file" : "validation part",
                                         stream, train_tokens, stream.size()));
  }
  return Dataset(std::move(stream), std::move(tokenizer), train_tokens, documents_announced);
}

Batch Dataset::NewBatch(int64_t B, int64_t T) const {
  const size_t size = static_cast<size_t>(B * T);
  Batch batch{.B = B,
              .T = T,
              .inputs = std::vector<int32_t>(size),
              .targets = std::vector<int32_t>(size, kNoTarget)};
  if (has_documents()) batch.position.resize(size);
  return batch;
}

void Dataset::FillRow(int64_t begin, int64_t first, int64_t end, int64_t row, Batch* batch) const {
  const int64_t T = batch->T, count = std::min(T, end - 1 - begin);
  int32_t* inputs = batch->inputs.data() + row * T;
  int32_t* targets = batch->targets.data() + row * T;
  stream_.Read(begin, count, inputs);
  stream_.Read(begin + 1, count, targets);
  batch->target_count += count;
  if (batch->position.empty()) return;
  int32_t* position = batch->position.data() + row * T;
  const std::span<const int64_t> begins = stream_.document_begins();
  auto next = std::upper_bound(begins.begin(), begins.end(), begin);
  int64_t start = first;
  if (next != begins.begin()) start = std::max(start, *(next - 1));
  for (int64_t t = 0; t < T; ++t) {
    if (next != begins.end() && *next == begin + t) {
      start = begin + t;
      ++next;
    }
    position[t] = static_cast<int32_t>(begin + t - start);
    const bool document_ends = next != begins.end() && *next == begin + t + 1;
    if (document_ends && !documents_announced_ && t < count) {
      targets[t] = kNoTarget;
      --batch->target_count;
    }
  }
}

Batch Dataset::TrainBatch(const BatchIndex& index, int64_t B, int64_t T) const {
  TESSERA_CHECK(train_tokens_ > T, "%ld tokens for sequences of %ld", train_tokens_, T);
  Batch batch = NewBatch(B, T);
  // As many windows as fit for every phase; one token more than the windows is the last target.
  const int64_t windows = std::max<int64_t>(1, (train_tokens_ - T) / T);
  const int64_t slack = train_tokens_ - 1 - windows * T;
  const int64_t first = (index.step * index.micro_batches + index.micro_batch) * B;
  for (int64_t row = 0; row < B; ++row) {
    const int64_t epoch = (first + row) / windows, i = (first + row) % windows;
    const Rng order(index.seed, absl::StrCat("data/epoch/", epoch));
    const Rng phase(index.seed, absl::StrCat("data/phase/", epoch));
    const int64_t shift = static_cast<int64_t>(phase.Below(0, static_cast<uint64_t>(slack) + 1));
    const int64_t begin = shift + PermutedIndex(order, i, windows) * T;
    FillRow(begin, begin, train_tokens_, row, &batch);
  }
  return batch;
}

int64_t Dataset::ValidationBatches(int64_t B, int64_t T) const {
  const int64_t targets = std::max<int64_t>(0, val_tokens() - 1);
  return (targets + B * T - 1) / (B * T);
}

Batch Dataset::ValidationBatch(int64_t i, int64_t B, int64_t T, int64_t most_targets) const {
  TESSERA_CHECK(i >= 0 && i < ValidationBatches(B, T), "batch %ld of %ld", i,
                ValidationBatches(B, T));
  Batch batch = NewBatch(B, T);
  for (int64_t row = 0; row < B; ++row) {
    const int64_t begin = train_tokens_ + (i * B + row) * T;
    if (begin + 1 < stream_.size()) FillRow(begin, begin, stream_.size(), row, &batch);
  }
  LimitTargets(most_targets, &batch);
  return batch;
}

void Dataset::LimitTargets(int64_t most_targets, Batch* batch) const {
  batch->target_count = std::min(batch->target_count, most_targets);
  int64_t targets = 0;
  for (int32_t& id : batch->targets) {
    if (id != kNoTarget && targets == batch->target_count) id = kNoTarget;
    if (id == kNoTarget) continue;
    ++targets;
    batch->target_bytes += static_cast<int64_t>(tokenizer_->TokenBytes(id).size());
  }
}

}  // namespace tessera
