#ifndef TESSERA_DATA_TOKEN_STREAM_H_
#define TESSERA_DATA_TOKEN_STREAM_H_

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "data/tokenizer.h"
#include "io/files.h"

namespace tessera {

// Tokens in a mapped file, in the narrowest form that holds them, and where documents begin, if the
// data has any.
class TokenStream {
 public:
  enum class Width : uint8_t { k8 = 1, k16 = 2, k32 = 4 };

  TokenStream() = default;

  // Views `count` tokens of a mapped file from `offset_bytes` on, which fit into it, and the places
  // of documents that are in the file too.
  static TokenStream OfFile(MappedFile file, Width width, int64_t offset_bytes, int64_t count,
                            std::span<const int64_t> document_begins = {});

  // Token `at` begins a document. Calls come in rising order.
  void BeginDocument(int64_t at) { found_begins_.push_back(at); }

  int64_t size() const { return size_; }
  // Ids of 2^31 and more, which only a file that was not checked yet can hold, come out negative.
  void Read(int64_t begin, int64_t count, int32_t* ids) const;

  bool has_documents() const { return !document_begins().empty(); }
  int64_t documents() const { return static_cast<int64_t>(document_begins().size()); }
  // Rising.
  std::span<const int64_t> document_begins() const {
    return found_begins_.empty() ? begins_in_file_ : std::span<const int64_t>(found_begins_);
  }

 private:
  MappedFile file_;
  int64_t offset_bytes_ = 0, size_ = 0;
  Width width_ = Width::k8;
  std::span<const int64_t> begins_in_file_;
  std::vector<int64_t> found_begins_;
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

// What tells the documents of text apart.
struct DocumentConfig {
  // Of a text file: stands between documents and is part of none. Empty: the file is one text.
  std::string separator;
  // A text that is one token of the tokenizer. It stands before each document and after the last,
  // so that their ends are predicted like any other token. Empty: nothing announces an end.
  std::string token;
};

// Who hears of what happens while data is opened; each may be null.
struct DataListener {
  std::function<void(const std::string&)> message;  // a line, such as a warning
  // While text is tokenised: bytes done, of how many. False ends it, with the status kCancelled.
  std::function<bool(int64_t, int64_t)> progress;
};

// The sources of a stream. Each names the file and the place in its errors. Text that is not mapped
// as it is, since its bytes are the ids, is tokenised once and kept (data/token_cache.h).
absl::StatusOr<TokenStream> OpenText(const std::string& path, const DocumentConfig& documents,
                                     const Tokenizer& tokenizer, const DataListener& listener);
absl::StatusOr<TokenStream> OpenJsonl(const std::string& path, const DocumentConfig& documents,
                                      const Tokenizer& tokenizer, const DataListener& listener);
absl::StatusOr<TokenStream> OpenTokens(const std::string& path, const TokenFileConfig& config,
                                       const Tokenizer& tokenizer);

// Writes what OpenTokens reads with Encoding::kHeader: 16-bit ids where the vocabulary allows it.
absl::Status WriteTokens(const std::string& path, const std::vector<int32_t>& ids, int64_t vocab);

}  // namespace tessera

#endif  // TESSERA_DATA_TOKEN_STREAM_H_
