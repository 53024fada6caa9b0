#include "arch/tokens.h"

#include "absl/strings/str_cat.h"

namespace tessera {

absl::Status CheckTokens(std::span<const int32_t> ids, int64_t vocab_size, absl::string_view of) {
  for (size_t i = 0; i < ids.size(); ++i)
    if (ids[i] < 0 || ids[i] >= vocab_size)
      return absl::InvalidArgumentError(absl::StrCat("token ", i, " of ", of, " has id ", ids[i],
                                                     ", but the model's vocabulary has ",
                                                     vocab_size, " tokens"));
  return absl::OkStatus();
}

}  // namespace tessera
