#ifndef TESSERA_KERNELS_LAYOUT_DOCUMENTS_H_
#define TESSERA_KERNELS_LAYOUT_DOCUMENTS_H_

#include <cstdint>

#include "kernels/view.h"

// Where the documents of a sequence begin and end, by rows of the chunk at hand.

namespace tessera {

// The row at which each token's document begins, from positions that count a document's tokens from
// 0 (Context::start):
//   start[t] = the last s <= t with position[s] = 0, or -position[0] where there is none: a
//   document of before the chunk, of which position[0] rows are behind.
// Only zeros tell documents apart, so later positions may jump; not so position[0] of a chunk that
// continues a document.
struct DocumentStartsArgs {
  static constexpr char kName[] = "document_starts";
  View<const int32_t> position;  // [B,T]
  View<int32_t> start;           // [B,T]
  int64_t B, T;
  template <class F>
  void Tensors(F&& f) {
    f.Index("position", position, {B, T});
    f.Out("start", start, {B, T});
  }
  Cost cost() const { return {.bytes = 2 * int64_t{sizeof(int32_t)} * B * T}; }
};

// The row behind the last token of each token's document, from where documents begin:
//   end[t] = the first s > t with start[s] = s, or T where there is none.
struct DocumentEndsArgs {
  static constexpr char kName[] = "document_ends";
  View<const int32_t> start;  // [B,T]
  View<int32_t> end;          // [B,T]
  int64_t B, T;
  template <class F>
  void Tensors(F&& f) {
    f.Index("start", start, {B, T});
    f.Out("end", end, {B, T});
  }
  Cost cost() const { return {.bytes = 2 * int64_t{sizeof(int32_t)} * B * T}; }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_LAYOUT_DOCUMENTS_H_
