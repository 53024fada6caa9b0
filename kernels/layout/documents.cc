#include "kernels/layout/documents.h"

#include "core/parallel.h"
#include "kernels/cpu/isa.h"

namespace tessera::TESSERA_ISA {
namespace {

// row(b) for every batch row.
template <class Args, class Row>
void ForEachSequence(const Args& a, Row row) {
  ParallelRanges(a.B, 1 + 65536 / (a.T + 1), [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) row(b);
  });
}

void DocumentStarts(const DocumentStartsArgs& a) {
  ForEachSequence(a, [&](int64_t b) {
    const int32_t* const position = a.position.Row(b);
    int32_t start = a.T > 0 ? -position[0] : 0;
    for (int64_t t = 0; t < a.T; ++t) {
      if (position[t] == 0) start = static_cast<int32_t>(t);
      a.start.Row(b)[t] = start;
    }
  });
}

void DocumentEnds(const DocumentEndsArgs& a) {
  ForEachSequence(a, [&](int64_t b) {
    int32_t end = static_cast<int32_t>(a.T);
    for (int64_t t = a.T - 1; t >= 0; --t) {
      a.end.Row(b)[t] = end;
      if (a.start.Row(b)[t] == t) end = static_cast<int32_t>(t);
    }
  });
}

}  // namespace

TESSERA_KERNEL_OF(DocumentStartsArgs, DocumentStarts)
TESSERA_KERNEL_OF(DocumentEndsArgs, DocumentEnds)

}  // namespace tessera::TESSERA_ISA
