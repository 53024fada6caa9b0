#ifndef TESSERA_DATA_DATASET_H_
#define TESSERA_DATA_DATASET_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
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

// One micro-batch. Target t of a row is the token after input t in the stream; kNoTarget where that
// is the next document, which no token announces, or past the end of the data.
constexpr int32_t kNoTarget = -1;
struct Batch {
  int64_t B = 0, T = 0;
  std::vector<int32_t> inputs;   // [B,T]
  std::vector<int32_t> targets;  // [B,T]
  // [B,T], tokens since the start of the token's document, or since the start of the row where that
  // is nearer: a Context's position, so that a document begins where it is 0. Empty for data
  // without documents.
  std::vector<int32_t> position;
  int64_t target_count = 0;  // targets that are not kNoTarget
  int64_t target_bytes = 0;  // that these decode to; counted in ValidationBatch only
};

// Which batch of a run. Together they say which windows it holds, whatever came before.
struct BatchIndex {
  uint64_t seed = 0;
  int64_t step = 0;
  int64_t micro_batch = 0, micro_batches = 1;  // of those that are accumulated in a step
};

// The tokens of a run and the order in which it sees them. Immutable after Open.
class Dataset {
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
  Batch SampleBatch(const BatchIndex& index, int64_t B, int64_t T) const;

  // The validation part in order: batch `i` has the windows [i*B, i*B + B) of T tokens. Each of its
  // tokens but the first is a target once; rows and places past the end have input 0, kNoTarget,
  // and so have targets after the first `most_targets` of the batch.
  int64_t ValidationBatches(int64_t B, int64_t T) const;
  Batch ValidationBatch(int64_t i, int64_t B, int64_t T, int64_t most_targets = INT64_MAX) const;

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
  void FillRow(int64_t begin, int64_t end, int64_t row, Batch& batch) const;

  TokenStream stream_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  int64_t train_tokens_;
  bool documents_announced_;  // by a token, so that the end of one can be predicted
  double bytes_per_token_;
};

}  // namespace tessera

#endif  // TESSERA_DATA_DATASET_H_
