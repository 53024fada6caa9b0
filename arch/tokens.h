#ifndef TESSERA_ARCH_TOKENS_H_
#define TESSERA_ARCH_TOKENS_H_

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace tessera {

// Whether ids that come from outside, a prompt or a caller's batch, are in the vocabulary: asked on
// the host, before a tensor is made of them. A model that is given others all the same has NaN in
// their place, on every device. `of` names the ids in the error: "the prompt".
absl::Status CheckTokens(std::span<const int32_t> ids, int64_t vocab_size, absl::string_view of);

}  // namespace tessera

#endif  // TESSERA_ARCH_TOKENS_H_
