#ifndef TESSERA_TRAIN_TOKEN_STREAM_H_
#define TESSERA_TRAIN_TOKEN_STREAM_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "train/files.h"
#include "train/tokenizer.h"

namespace tessera {

// Tokens in the narrowest form that holds them, either where a mapped file has them or in memory,
// and where documents begin, if the data has any.
class TokenStream {
 public:
  enum class Width : uint8_t { k8 = 1, k16 = 2, k32 = 4 };

  TokenStream() = default;

  // Views `count` tokens of a mapped file from `offset_bytes` on, which fit into it.
  static TokenStream OfFile(MappedFile file, Width width, int64_t offset_bytes, int64_t count);
  // An empty stream in memory for ids below `vocab`, filled by Append.
  static TokenStream InMemory(int64_t vocab);

  void Append(const std::vector<int32_t>& ids);
  // Token `at`, which may be the next to be appended, begins a document. Calls come in rising
  // order.
  void BeginDocument(int64_t at) { document_begins_.push_back(at); }

  int64_t size() const { return size_; }
  // Ids of 2^31 and more, which only a file that was not checked yet can hold, come out negative.
  void Read(int64_t begin, int64_t count, int32_t* ids) const;

  bool has_documents() const { return !document_begins_.empty(); }
  int64_t documents() const { return static_cast<int64_t>(document_begins_.size()); }
  // The first token of the document that token `i` is in; 0 before the first.
  int64_t DocumentBegin(int64_t i) const;
  const std::vector<int64_t>& document_begins() const { return document_begins_; }

 private:
  const unsigned char* bytes() const;

  MappedFile file_;
  std::vector<unsigned char> memory_;
  int64_t offset_bytes_ = 0, size_ = 0;
  Width width_ = Width::k8;
  bool in_memory_ = false;
  std::vector<int64_t> document_begins_;  // rising
};

// How to read a file of token ids.
struct TokenFileConfig {
  // With a header, as llm.c writes it: 256 int32 words, of which the first three are a magic number
  // (20240520: uint16 ids, 20240801: uint32 ids), a version (1 or 7) and the count of tokens, which
  // must be the file's. Without: raw ids of the given width. Little-endian all.
  enum class Encoding : uint8_t { kHeader, kU16, kU32 };
  Encoding encoding = Encoding::kHeader;
  int64_t document_id = -1;  // the token that each document begins with; -1: no documents
};

// The sources of a stream. Each names the file and the place in its errors.
absl::StatusOr<TokenStream> OpenText(const std::string& path, const Tokenizer& tokenizer);
absl::StatusOr<TokenStream> OpenJsonl(const std::string& path, const Tokenizer& tokenizer);
absl::StatusOr<TokenStream> OpenTokens(const std::string& path, const TokenFileConfig& config,
                                       const Tokenizer& tokenizer);

// Writes what OpenTokens reads with Encoding::kHeader: 16-bit ids where the vocabulary allows it.
absl::Status WriteTokens(const std::string& path, const std::vector<int32_t>& ids, int64_t vocab);

}  // namespace tessera

#endif  // TESSERA_TRAIN_TOKEN_STREAM_H_
