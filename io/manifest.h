#ifndef TESSERA_IO_MANIFEST_H_
#define TESSERA_IO_MANIFEST_H_

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tessera {

// What manifest.json of a checkpoint says.
struct Manifest {
  struct File {
    int64_t bytes = 0;
    std::string hash;
    bool operator==(const File&) const = default;
  };
  int64_t step = 0;
  nlohmann::json metadata;
  std::map<std::string, File> files;  // by plain name
};

// Size and XXH3-128, as 32 hexadecimal digits, of a file's bytes.
Manifest::File Fingerprint(absl::string_view bytes);

std::string WriteManifest(const Manifest& manifest);

// Accepts only a text that WriteManifest would write again, to the byte. `where` begins the errors.
absl::StatusOr<Manifest> ReadManifest(absl::string_view text, absl::string_view where);

}  // namespace tessera

#endif  // TESSERA_IO_MANIFEST_H_
