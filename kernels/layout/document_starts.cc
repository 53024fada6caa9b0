#include "kernels/layout/document_starts.h"

#include "core/parallel.h"
#include "kernels/cpu/isa.h"

namespace tessera::TESSERA_ISA {
namespace {

void DocumentStarts(const DocumentStartsArgs& a) {
  ParallelRanges(a.B, 1 + 65536 / (a.T + 1), [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int32_t* const position = a.position + b * a.T;
      int32_t start = a.T > 0 ? -position[0] : 0;
      for (int64_t t = 0; t < a.T; ++t) {
        if (position[t] == 0) start = static_cast<int32_t>(t);
        a.start[b * a.T + t] = start;
      }
    }
  });
}

}  // namespace

TESSERA_KERNEL_OF(DocumentStartsArgs, DocumentStarts)

}  // namespace tessera::TESSERA_ISA
