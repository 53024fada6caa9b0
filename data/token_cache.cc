#include "data/token_cache.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/check.h"
#include "core/rng.h"
#include "core/status.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using Message = std::function<void(const std::string&)>;

constexpr char kMagic[8] = {'t', 'o', 'k', 'e', 'n', 's', ' ', '1'};
constexpr size_t kBlock_bytes = size_t{1} << 20, kKey_bytes = 32;

struct Footer {
  char magic[8];
  char key[kKey_bytes];
  int64_t width_bytes, tokens, documents;
  uint64_t hash;  // of all bytes of the file before it
};
static_assert(sizeof(Footer) == 72);

int64_t WidthBytes(int64_t vocab) { return vocab <= 256 ? 1 : vocab <= 65536 ? 2 : 4; }

// The hash of a file's blocks one after another, so that it can be made while they are written.
uint64_t HashOn(uint64_t before, absl::string_view block) {
  return Hash(absl::StrCat(absl::Hex(before), " ", absl::Hex(Hash(block))));
}

// The stream in a file of the cache. An error says what is wrong with it.
absl::StatusOr<TokenStream> OpenCached(const std::string& path, const std::string& key,
                                       int64_t vocab) {
  TESSERA_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  const absl::string_view bytes = file.bytes();
  const auto bad = [&](absl::string_view what) {
    return absl::DataLossError(absl::StrCat(path, " ", what));
  };
  Footer footer;
  if (bytes.size() < sizeof footer) return bad("is cut off");
  std::memcpy(&footer, bytes.data() + bytes.size() - sizeof footer, sizeof footer);
  if (std::memcmp(footer.magic, kMagic, sizeof kMagic) != 0)
    return bad("is damaged, or no file of tokens");
  if (std::memcmp(footer.key, key.data(), kKey_bytes) != 0)
    return bad("is of another text or tokenizer");
  const int64_t size = static_cast<int64_t>(bytes.size());
  if (footer.width_bytes != WidthBytes(vocab) || footer.tokens < 0 || footer.tokens > size ||
      footer.documents < 0 || footer.documents > size ||
      (footer.tokens * footer.width_bytes + 7) / 8 * 8 + footer.documents * 8 +
              static_cast<int64_t>(sizeof footer) !=
          size)
    return bad("is damaged: its sizes do not add up");
  uint64_t hash = 0;
  for (absl::string_view rest = bytes.substr(0, bytes.size() - sizeof footer.hash); !rest.empty();
       rest.remove_prefix(std::min(rest.size(), kBlock_bytes)))
    hash = HashOn(hash, rest.substr(0, kBlock_bytes));
  if (hash != footer.hash) return bad("is damaged: its hash is another");
  // Places are aligned: a mapping begins at a page, and the ids fill up to a multiple of 8.
  const auto* begins =
      reinterpret_cast<const int64_t*>(bytes.data() + size - sizeof footer - 8 * footer.documents);
  return TokenStream::OfFile(std::move(file), static_cast<TokenStream::Width>(footer.width_bytes),
                             0, footer.tokens,
                             std::span(begins, static_cast<size_t>(footer.documents)));
}

// Where files of the cache may be, the best place first.
std::vector<std::string> Folders(const std::string& text_path) {
  const std::string parent = fs::path(text_path).parent_path().string();
  std::vector<std::string> folders = {(parent.empty() ? "." : parent) + "/.tessera-cache"};
  const char* const cache = std::getenv("XDG_CACHE_HOME");
  const char* const home = std::getenv("HOME");
  if (cache != nullptr && cache[0] != '\0')
    folders.push_back(absl::StrCat(cache, "/tessera"));
  else if (home != nullptr && home[0] != '\0')
    folders.push_back(absl::StrCat(home, "/.cache/tessera"));
  return folders;
}

}  // namespace

TokenWriter::TokenWriter(AtomicFile file, const std::string& key, int64_t vocab)
    : file_(std::move(file)), key_(key), width_bytes_(WidthBytes(vocab)) {
  TESSERA_CHECK(key.size() == kKey_bytes, "a key of %zu bytes", key.size());
}

absl::Status TokenWriter::Append(std::span<const int32_t> ids) {
  size_ += static_cast<int64_t>(ids.size());
  for (const int32_t id : ids)  // little-endian, so the low bytes stand first
    TESSERA_RETURN_IF_ERROR(Put(&id, static_cast<size_t>(width_bytes_)));
  return absl::OkStatus();
}

absl::Status TokenWriter::Put(const void* data, size_t bytes) {
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const size_t some = std::min(bytes, kBlock_bytes - block_.size());
    block_.append(from, some);
    from += some;
    bytes -= some;
    if (block_.size() == kBlock_bytes) TESSERA_RETURN_IF_ERROR(WriteBlock());
  }
  return absl::OkStatus();
}

absl::Status TokenWriter::WriteBlock() {
  if (block_.empty()) return absl::OkStatus();
  hash_ = HashOn(hash_, block_);
  TESSERA_RETURN_IF_ERROR(file_.Append(block_));
  block_.clear();
  return absl::OkStatus();
}

absl::Status TokenWriter::Commit() {
  const std::string zeros(static_cast<size_t>(-(size_ * width_bytes_) & 7), '\0');
  TESSERA_RETURN_IF_ERROR(Put(zeros.data(), zeros.size()));
  TESSERA_RETURN_IF_ERROR(Put(document_begins_.data(), 8 * document_begins_.size()));
  Footer footer = {.width_bytes = width_bytes_,
                   .tokens = size_,
                   .documents = static_cast<int64_t>(document_begins_.size())};
  std::memcpy(footer.magic, kMagic, sizeof kMagic);
  std::memcpy(footer.key, key_.data(), kKey_bytes);
  TESSERA_RETURN_IF_ERROR(Put(&footer, sizeof footer - sizeof footer.hash));
  TESSERA_RETURN_IF_ERROR(WriteBlock());
  const uint64_t hash = hash_;
  TESSERA_RETURN_IF_ERROR(
      file_.Append(absl::string_view(reinterpret_cast<const char*>(&hash), sizeof hash)));
  return file_.Commit();
}

absl::StatusOr<TokenStream> CachedTokens(const std::string& path, const std::string& key,
                                         int64_t vocab,
                                         const std::function<absl::Status(TokenWriter*)>& write,
                                         const Message& message) {
  const std::vector<std::string> folders = Folders(path);
  const std::string name = absl::StrCat(fs::path(path).filename().string().substr(0, 100), "-",
                                        key.substr(0, 16), ".tokens");
  for (const std::string& folder : folders) {
    absl::StatusOr<TokenStream> stream = OpenCached(folder + "/" + name, key, vocab);
    if (stream.ok()) return stream;
    if (absl::IsDataLoss(stream.status()) && message)
      message(
          absl::StrCat("warning: ", stream.status().message(), "; ", path, " is tokenised again"));
  }
  std::string reasons;
  for (const std::string& folder : folders) {
    absl::Status status = MakeDirectories(folder);
    if (status.ok()) {
      absl::StatusOr<AtomicFile> file = AtomicFile::Create(folder + "/" + name);
      if (file.ok()) {
        TokenWriter writer(*std::move(file), key, vocab);
        TESSERA_RETURN_IF_ERROR(write(&writer));
        TESSERA_RETURN_IF_ERROR(writer.Commit());
        return OpenCached(folder + "/" + name, key, vocab);
      }
      status = file.status();
    }
    absl::StrAppend(&reasons, status.message(), "; ");
  }
  return absl::FailedPreconditionError(
      absl::StrCat("there is no place for the tokens of ", path, ": ", reasons,
                   "set XDG_CACHE_HOME to a folder that can be written"));
}

}  // namespace tessera
