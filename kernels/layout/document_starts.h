#ifndef TESSERA_KERNELS_LAYOUT_DOCUMENT_STARTS_H_
#define TESSERA_KERNELS_LAYOUT_DOCUMENT_STARTS_H_

#include <cstdint>

#include "kernels/cost.h"

// The row at which each token's document begins, from positions that count a document's tokens from
// 0 (Context::start):
//   start[t] = the last s <= t with position[s] = 0, or -position[0] where there is none: a
//   document of before the chunk, of which position[0] rows are behind.
// Only zeros tell documents apart, so later positions may jump; not so position[0] of a chunk that
// continues a document.

namespace tessera {

struct DocumentStartsArgs {
  static constexpr char kName[] = "document_starts";
  const int32_t* position;  // [B,T]
  int32_t* start;           // [B,T]
  int64_t B, T;
  Cost cost() const { return {.bytes = 2 * int64_t{sizeof(int32_t)} * B * T}; }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_LAYOUT_DOCUMENT_STARTS_H_
