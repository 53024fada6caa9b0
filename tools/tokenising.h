#ifndef TESSERA_TOOLS_TOKENISING_H_
#define TESSERA_TOOLS_TOKENISING_H_

#include <unistd.h>

#include <cstdint>
#include <cstdio>

namespace tessera {

// Shows on a terminal how much of a text is tokenised, and takes the line away at the end.
inline void ShowTokenising(int64_t done_bytes, int64_t all_bytes) {
  if (isatty(STDERR_FILENO) == 0) return;
  std::fprintf(stderr, "\r\033[K");
  if (done_bytes < all_bytes)
    std::fprintf(stderr, "tokenising: %ld of %ld MB", static_cast<long>(done_bytes / 1000000),
                 static_cast<long>(all_bytes / 1000000));
}

}  // namespace tessera

#endif  // TESSERA_TOOLS_TOKENISING_H_
