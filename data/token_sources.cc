#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/status.h"
#include "data/token_stream.h"

namespace tessera {
namespace {

absl::Status Bad(absl::string_view where, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", what));
}

constexpr int64_t kHeader_words = 256, kHeader_bytes = kHeader_words * 4;

struct Layout {
  TokenStream::Width width;
  int64_t offset_bytes, count;
};

// The first words of the header: magic, version, count of tokens.
absl::StatusOr<Layout> ReadHeader(absl::string_view bytes, const std::string& path) {
  const int64_t size = static_cast<int64_t>(bytes.size());
  if (size < kHeader_bytes)
    return Bad(path, absl::StrCat("the file has ", size, " bytes, less than the header of ",
                                  kHeader_bytes));
  int32_t words[3];
  std::memcpy(words, bytes.data(), sizeof(words));
  const auto [magic, version, count] = words;
  const bool is_u16 = magic == 20240520 && version == 1;
  const bool is_u32 = magic == 20240801 && version == 7;
  if (!is_u16 && !is_u32)
    return Bad(path, absl::StrCat("the header says magic ", magic, ", version ", version,
                                  "; 20240520, 1 (uint16) or 20240801, 7 (uint32) are expected; "
                                  "for ids without a header say which width they have"));
  const int64_t width_bytes = is_u16 ? 2 : 4;
  if (count < 0 || kHeader_bytes + count * width_bytes != size)
    return Bad(
        path, absl::StrCat("the header says ", count, " tokens, which would be ",
                           kHeader_bytes + count * width_bytes, " bytes, but the file has ", size));
  return Layout{is_u16 ? TokenStream::Width::k16 : TokenStream::Width::k32, kHeader_bytes, count};
}

absl::StatusOr<Layout> LayoutOf(absl::string_view bytes, const TokenFileConfig& config,
                                const std::string& path) {
  if (config.encoding == TokenFileConfig::Encoding::kHeader) return ReadHeader(bytes, path);
  const bool is_u16 = config.encoding == TokenFileConfig::Encoding::kU16;
  const int64_t width_bytes = is_u16 ? 2 : 4, size = static_cast<int64_t>(bytes.size());
  if (size % width_bytes != 0)
    return Bad(path, absl::StrCat("the file has ", size, " bytes, no multiple of the ", width_bytes,
                                  " bytes of a token"));
  return Layout{is_u16 ? TokenStream::Width::k16 : TokenStream::Width::k32, 0, size / width_bytes};
}

// Every id once: is it in the vocabulary, does it begin a document?
absl::Status ScanIds(TokenStream& stream, const TokenFileConfig& config, const Layout& layout,
                     int64_t vocab, const std::string& path) {
  std::vector<int32_t> ids(1 << 14);
  for (int64_t begin = 0; begin < stream.size(); begin += static_cast<int64_t>(ids.size())) {
    const int64_t count = std::min(static_cast<int64_t>(ids.size()), stream.size() - begin);
    stream.Read(begin, count, ids.data());
    for (int64_t i = 0; i < count; ++i) {
      const int64_t id = static_cast<uint32_t>(ids[static_cast<size_t>(i)]);
      if (id >= vocab)
        return Bad(path, absl::StrCat(
                             "token ", begin + i, " (byte ",
                             layout.offset_bytes + (begin + i) * static_cast<int64_t>(layout.width),
                             ") has id ", id, ", but the tokenizer has ", vocab,
                             " tokens; use the tokenizer that wrote the file"));
      if (id == config.document_id) stream.BeginDocument(begin + i);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenStream> OpenTokens(const std::string& path, const TokenFileConfig& config,
                                       const Tokenizer& tokenizer) {
  TESSERA_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  if (file.bytes().empty()) return Bad(path, "the file is empty; there is nothing to train on");
  TESSERA_ASSIGN_OR_RETURN(const Layout layout, LayoutOf(file.bytes(), config, path));
  if (config.document_id >= tokenizer.vocab_size())
    return Bad(path, absl::StrCat("the document token has id ", config.document_id,
                                  ", but the tokenizer has ", tokenizer.vocab_size(), " tokens"));
  TokenStream stream =
      TokenStream::OfFile(std::move(file), layout.width, layout.offset_bytes, layout.count);
  TESSERA_RETURN_IF_ERROR(ScanIds(stream, config, layout, tokenizer.vocab_size(), path));
  return stream;
}

absl::Status WriteTokens(const std::string& path, const std::vector<int32_t>& ids, int64_t vocab) {
  if (ids.size() > static_cast<size_t>(INT32_MAX))
    return Bad(path, absl::StrCat(ids.size(), " tokens are more than the header can count (",
                                  INT32_MAX, "); split the text"));
  const bool narrow = vocab <= 65536;
  int32_t header[kHeader_words] = {narrow ? 20240520 : 20240801, narrow ? 1 : 7,
                                   static_cast<int32_t>(ids.size())};
  std::string bytes(reinterpret_cast<const char*>(header), sizeof header);
  bytes.reserve(bytes.size() + ids.size() * (narrow ? 2 : 4));
  for (const int32_t id : ids)
    for (int b = 0; b < (narrow ? 2 : 4); ++b)
      bytes += static_cast<char>(static_cast<uint32_t>(id) >> (8 * b));
  return AtomicWrite(path, bytes);
}

}  // namespace tessera
