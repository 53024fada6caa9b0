#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/status.h"
#include "data/jsonl.h"
#include "data/text_kind.h"
#include "data/token_cache.h"
#include "data/token_stream.h"
#include "io/json.h"
#include "io/manifest.h"

namespace tessera {
namespace {

absl::Status Bad(absl::string_view where, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", what));
}

absl::StatusOr<MappedFile> OpenTextFile(const std::string& path, const DataListener& listener) {
  TESSERA_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  if (file.bytes().empty()) return Bad(path, "the file is empty; there is nothing to train on");
  TESSERA_ASSIGN_OR_RETURN(const std::string warning, CheckText(file.bytes(), path));
  if (!warning.empty() && listener.message) listener.message("warning: " + warning);
  return file;
}

// Documents on their way into a file of tokens.
class Tokenising {
 public:
  Tokenising(const std::string& path, int64_t bytes, const Tokenizer& tokenizer,
             int32_t document_token, const DataListener& listener, TokenWriter* out)
      : path_(path),
        bytes_(bytes),
        tokenizer_(tokenizer),
        document_token_(document_token),
        listener_(listener),
        out_(*out) {}

  // Text from byte `at` of the file on; errors of the tokenizer are at `where`.
  absl::Status Add(absl::string_view text, int64_t at, absl::string_view where) {
    absl::Status written = Tell(at);
    if (!written.ok()) return written;
    const absl::Status encoded =
        tokenizer_.EncodeInto(text, [&](std::span<const int32_t> ids, int64_t bytes) {
          written = out_.Append(ids);
          at += bytes;
          if (written.ok()) written = Tell(std::min(at, bytes_));
          return written.ok();
        });
    if (!encoded.ok()) return Bad(where, encoded.message());
    return written;
  }
  // A whole document; one without text is none.
  absl::Status AddDocument(absl::string_view text, int64_t at, absl::string_view where) {
    if (text.empty()) return absl::OkStatus();
    out_.BeginDocument();
    ++documents_;
    TESSERA_RETURN_IF_ERROR(Announce());
    return Add(text, at, where);
  }
  absl::Status EndDocuments(absl::string_view nothing) {
    return documents_ == 0 ? Bad(path_, nothing) : Announce();
  }

 private:
  absl::Status Announce() {
    return document_token_ < 0 ? absl::OkStatus() : out_.Append(std::span(&document_token_, 1));
  }
  // Tells the listener every megabyte, and the end.
  absl::Status Tell(int64_t done) {
    constexpr int64_t kEvery_bytes = 1 << 20;
    if (!listener_.progress || (done < told_ + kEvery_bytes && done < bytes_))
      return absl::OkStatus();
    told_ = done;
    if (listener_.progress(done, bytes_)) return absl::OkStatus();
    return absl::CancelledError(absl::StrCat("interrupted while ", path_, " was tokenised"));
  }

  const std::string& path_;
  const int64_t bytes_;
  const Tokenizer& tokenizer_;
  const int32_t document_token_;
  const DataListener& listener_;
  TokenWriter& out_;
  int64_t told_ = 0, documents_ = 0;
};

absl::Status AddSeparated(absl::string_view text, const std::string& separator,
                          const std::string& path, const DataListener& listener,
                          Tokenising* tokens) {
  if (text.find(separator) == text.npos && listener.message)
    listener.message(absl::StrCat("warning: ", path, ": the separator ", Quote(separator),
                                  " is nowhere in the file, which is one document then"));
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(separator, begin), text.size());
    TESSERA_RETURN_IF_ERROR(
        tokens->AddDocument(text.substr(begin, end - begin), static_cast<int64_t>(begin), path));
    begin = end + separator.size();
  }
  return tokens->EndDocuments("no document holds any text; there is nothing to train on");
}

absl::Status AddJsonl(absl::string_view bytes, const std::string& path, Tokenising* tokens) {
  TESSERA_RETURN_IF_ERROR(ForEachDocument(bytes, path, [&](const JsonlDocument& document) {
    return tokens->AddDocument(document.text, document.at, document.where);
  }));
  return tokens->EndDocuments(
      "no line holds a document with any text; there is nothing to train on");
}

// Everything that decides the tokens of a file.
std::string KeyOf(absl::string_view bytes, absl::string_view format,
                  const DocumentConfig& documents, const Tokenizer& tokenizer) {
  return Fingerprint(absl::StrCat(Fingerprint(bytes).hash, " ",
                                  Fingerprint(tokenizer.Serialize()).hash, " ",
                                  Fingerprint(documents.separator).hash, " ",
                                  Fingerprint(documents.token).hash, " ", format))
      .hash;
}

absl::StatusOr<TokenStream> Tokenised(const std::string& path, absl::string_view bytes,
                                      absl::string_view format, const DocumentConfig& documents,
                                      const Tokenizer& tokenizer, const DataListener& listener,
                                      const std::function<absl::Status(Tokenising*)>& add) {
  int32_t document_token = -1;
  if (!documents.token.empty()) {
    TESSERA_ASSIGN_OR_RETURN(document_token, IdOfToken(tokenizer, documents.token));
  }
  return CachedTokens(
      path, KeyOf(bytes, format, documents, tokenizer), tokenizer.vocab_size(),
      [&](TokenWriter* out) {
        Tokenising tokens(path, static_cast<int64_t>(bytes.size()), tokenizer, document_token,
                          listener, out);
        return add(&tokens);
      },
      listener.message);
}

}  // namespace

absl::StatusOr<TokenStream> OpenText(const std::string& path, const DocumentConfig& documents,
                                     const Tokenizer& tokenizer, const DataListener& listener) {
  TESSERA_ASSIGN_OR_RETURN(MappedFile file, OpenTextFile(path, listener));
  const absl::string_view bytes = file.bytes();
  if (documents.separator.empty() && tokenizer.ids_are_bytes())
    return TokenStream::OfFile(std::move(file), TokenStream::Width::k8, 0,
                               static_cast<int64_t>(bytes.size()));
  if (documents.separator.empty())
    return Tokenised(path, bytes, "text", {}, tokenizer, listener,
                     [&](Tokenising* tokens) { return tokens->Add(bytes, 0, path); });
  return Tokenised(path, bytes, "text", documents, tokenizer, listener, [&](Tokenising* tokens) {
    return AddSeparated(bytes, documents.separator, path, listener, tokens);
  });
}

absl::StatusOr<TokenStream> OpenJsonl(const std::string& path, const DocumentConfig& documents,
                                      const Tokenizer& tokenizer, const DataListener& listener) {
  TESSERA_ASSIGN_OR_RETURN(const MappedFile file, OpenTextFile(path, listener));
  return Tokenised(path, file.bytes(), "jsonl", {.token = documents.token}, tokenizer, listener,
                   [&](Tokenising* tokens) { return AddJsonl(file.bytes(), path, tokens); });
}

}  // namespace tessera
