#ifndef TESSERA_DATA_TOKEN_CACHE_H_
#define TESSERA_DATA_TOKEN_CACHE_H_

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/token_stream.h"
#include "io/files.h"

namespace tessera {

// Text that was turned into tokens once is kept as a file of tokens, and mapped from then on. The
// file stands in a folder .tessera-cache beside the text or, where that cannot be written, in
// $XDG_CACHE_HOME/tessera (~/.cache/tessera). Its name tells the text's name and a hash of
// everything that decides the tokens: the text's bytes, the tokenizer, how documents are told
// apart. Nothing but space is lost when the folders are deleted.
//
// Its bytes: the ids, of 1, 2 or 4 bytes by the vocabulary, zeros up to a multiple of 8, the place
// at which each document begins (int64), and a footer with the counts and a hash of all before,
// which is checked whenever the file is read. It appears under its name only when it is whole, so
// that two processes at once only do the work twice.

// Writes such a file from the first token to the last. Holds a block of it in memory, and 8 bytes a
// document.
class TokenWriter {
 public:
  TokenWriter(AtomicFile file, const std::string& key, int64_t vocab);
  // The next token begins a document.
  void BeginDocument() { document_begins_.push_back(size_); }
  absl::Status Append(std::span<const int32_t> ids);
  int64_t size() const { return size_; }
  absl::Status Commit();

 private:
  absl::Status Put(const void* data, size_t bytes);
  absl::Status WriteBlock();

  AtomicFile file_;
  std::string key_, block_;
  int64_t width_bytes_, size_ = 0;
  uint64_t hash_ = 0;  // of the blocks written
  std::vector<int64_t> document_begins_;
};

// The tokens of the text file at `path`, from the cache or, where they are not there or not whole,
// by `write`. `key` is 32 hexadecimal digits, the hash of what decides the tokens. `message` hears
// of a file that cannot be used.
absl::StatusOr<TokenStream> CachedTokens(const std::string& path, const std::string& key,
                                         int64_t vocab,
                                         const std::function<absl::Status(TokenWriter*)>& write,
                                         const std::function<void(const std::string&)>& message);

}  // namespace tessera

#endif  // TESSERA_DATA_TOKEN_CACHE_H_
