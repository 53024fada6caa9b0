#include "kernels/layout/positions.h"

#include "core/parallel.h"
#include "kernels/cpu/isa.h"

namespace tessera::TESSERA_ISA {
namespace {

void Positions(const PositionsArgs& a) {
  ParallelRanges(a.B * a.count, 16384, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) a.y.data[i] = a.At(i / a.count, i % a.count);
  });
}

}  // namespace

TESSERA_KERNEL_OF(PositionsArgs, Positions)

}  // namespace tessera::TESSERA_ISA
