#ifndef TESSERA_DATA_TEXT_KIND_H_
#define TESSERA_DATA_TEXT_KIND_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tessera {

// Whether bytes that are to be read as text look like text. What begins as a compressed or binary
// container does is an error, since nothing can be learnt from it as it is. For UTF-16 and UTF-32,
// by their marks or by where their zeros are, and for a share of zeros that no text has, there is a
// warning: the bytes can be trained on, but hardly anyone means to. Empty: nothing to say.
absl::StatusOr<std::string> CheckText(absl::string_view bytes, const std::string& path);

}  // namespace tessera

#endif  // TESSERA_DATA_TEXT_KIND_H_
