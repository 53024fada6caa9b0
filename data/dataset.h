#ifndef TESSERA_DATA_DATASET_H_
#define TESSERA_DATA_DATASET_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/batches.h"
#include "data/token_stream.h"
#include "data/tokenizer.h"

namespace tessera {

// What the model is trained on: one stream of tokens, its last part held back for validation.
struct DataConfig {
  enum class Format : uint8_t {
    kText,   // the file is one stream, or documents with a separator between them
    kJsonl,  // an object a line; the string under `text` is a document
    kTokens  // token ids in binary, see token_file.h
  };
  Format format = Format::kText;
  std::string path;
  // Of the tokens, at the end; whole documents if there are any. In [0, 0.5], or 1: all of the
  // file, none to train on.
  double val_fraction = 0.05;
  TokenFileConfig tokens;    // kTokens only
  DocumentConfig documents;  // kText and kJsonl
};

// The token that stands between documents and so ends one that a model writes; -1: there is none.
absl::StatusOr<int32_t> DocumentToken(const DataConfig& config, const Tokenizer& tokenizer);

// The tokens of a run, and batches of them for the next-token objective in a random order: target t
// of a row is the token after input t in the stream; kNoTarget where that is the next document,
// which no token announces, or past the end of the data. Immutable after Open.
class Dataset final : public BatchSource {
 public:
  // Opens, tokenises where needed and splits. `T` is the sequence length that must fit. Errors: a
  // file that is missing, empty or not of its format (with line or byte), a token id that the
  // tokenizer does not have (with its place), fewer tokens than one sequence needs, a part in which
  // no token has a next one to predict.
  static absl::StatusOr<Dataset> Open(const DataConfig& config,
                                      std::shared_ptr<const Tokenizer> tokenizer, int64_t T,
                                      const DataListener& listener = {});

  // A random batch of the training part, a pure function of its arguments. An epoch cuts the
  // stream, from a random phase on, into windows of T tokens that do not overlap, and takes them in
  // a random order: each token is trained once an epoch, but for less than 2T at the ends.
  Batch TrainBatch(const BatchIndex& index, int64_t B, int64_t T) const override;

  // The validation part in order: batch `i` has the windows [i*B, i*B + B) of T tokens. Each of its
  // tokens but the first is a target once; rows and places past the end have input 0, kNoTarget,
  // and so have targets after the first `most_targets` of the batch.
  int64_t ValidationBatches(int64_t B, int64_t T) const override;
  Batch ValidationBatch(int64_t i, int64_t B, int64_t T,
                        int64_t most_targets = INT64_MAX) const override;

  // For sources of other batches. The tokens [begin, end), of training or of validation.
  struct Span {
    int64_t begin = 0, end = 0;
  };
  Span train() const { return {0, train_tokens_}; }
  Span val() const { return {train_tokens_, stream_.size()}; }
  Batch NewBatch(int64_t B, int64_t T) const;  // without inputs or targets
  // Row `row`: the T + 1 tokens from `begin` on, as far as `end`, as inputs and, one later,
  // targets. Its documents start no earlier than at `first`, which is at most `begin`.
  void FillRow(int64_t begin, int64_t first, int64_t end, int64_t row, Batch* batch) const;
  const TokenStream& stream() const { return stream_; }
  // Of a validation batch: no more than so many targets, and the bytes that they stand for.
  void LimitTargets(int64_t most_targets, Batch* batch) const;

  int64_t train_tokens() const { return train_tokens_; }
  int64_t val_tokens() const { return stream_.size() - train_tokens_; }
  bool has_documents() const { return stream_.has_documents(); }
  int64_t documents() const { return stream_.documents(); }

  // Mean bytes of the last 2^20 tokens: loss in nats / ln 2 / this is about the bits per byte. The
  // target_bytes of validation batches give them exactly.
  double bytes_per_token() const { return bytes_per_token_; }

 private:
  Dataset(TokenStream stream, std::shared_ptr<const Tokenizer> tokenizer, int64_t train_tokens,
          bool documents_announced);

  TokenStream stream_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  int64_t train_tokens_;
  bool documents_announced_;  // by a token, so that the end of one can be predicted
  double bytes_per_token_;
};

}  // namespace tessera

#endif  // TESSERA_DATA_DATASET_H_
