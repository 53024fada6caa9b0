#include "io/manifest.h"

#include <xxhash.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "core/status.h"
#include "io/json.h"

namespace tessera {
namespace {

constexpr int64_t kMaxFile_bytes = (int64_t{1} << 48) - 1;

}  // namespace

Manifest::File Fingerprint(absl::string_view bytes) {
  XXH128_canonical_t digest;
  XXH128_canonicalFromHash(&digest, XXH3_128bits(bytes.data(), bytes.size()));
  return {.bytes = static_cast<int64_t>(bytes.size()),
          .hash = absl::BytesToHexString(absl::string_view(
              reinterpret_cast<const char*>(digest.digest), sizeof(digest.digest)))};
}

std::string WriteManifest(const Manifest& manifest) {
  nlohmann::ordered_json json = {
      {"format", 1}, {"step", manifest.step}, {"metadata", manifest.metadata}};
  for (const auto& [name, file] : manifest.files)
    json["files"][name] = {{"bytes", file.bytes}, {"xxh3_128", file.hash}};
  json["xxh3_128"] = Fingerprint(json.dump()).hash;
  return json.dump(1) + "\n";
}

absl::StatusOr<Manifest> ReadManifest(absl::string_view text, absl::string_view where) {
  TESSERA_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text, where));
  TESSERA_RETURN_IF_ERROR(
      CheckKeys(json, {"format", "step", "metadata", "files", "xxh3_128"}, where));
  TESSERA_RETURN_IF_ERROR(GetInteger(json, "format", 1, 1, where).status());
  Manifest manifest;
  TESSERA_ASSIGN_OR_RETURN(manifest.step, GetInteger(json, "step", 0, INT64_MAX, where));
  TESSERA_ASSIGN_OR_RETURN(const nlohmann::json* metadata, GetObject(json, "metadata", where));
  manifest.metadata = *metadata;
  TESSERA_ASSIGN_OR_RETURN(const nlohmann::json* files, GetObject(json, "files", where));
  for (const auto& [name, entry] : files->items()) {
    Manifest::File& file = manifest.files[name];
    TESSERA_ASSIGN_OR_RETURN(file.bytes, GetInteger(entry, "bytes", 0, kMaxFile_bytes, where));
    TESSERA_ASSIGN_OR_RETURN(file.hash, GetString(entry, "xxh3_128", where));
  }
  if (WriteManifest(manifest) != text)
    return absl::DataLossError(
        absl::StrCat(where, ": the manifest is not as it was written; its own hash differs"));
  return manifest;
}

}  // namespace tessera
