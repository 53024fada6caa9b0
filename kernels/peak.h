#ifndef TESSERA_KERNELS_PEAK_H_
#define TESSERA_KERNELS_PEAK_H_

#include <cstdint>

#include "core/dtype.h"
#include "kernels/cost.h"

namespace tessera {

// Multiply-adds of vectors that never leave their registers, on every thread: what matrix products
// could reach if nothing were ever loaded.
template <class T>
struct PeakArgs {
  static constexpr char kName[] = "peak";
  int64_t chunks, rounds;  // each chunk does `rounds` times kChains multiply-adds of vectors
  float* sink;             // [chunks], so that no compiler drops the work
  int64_t* flops;          // [chunks], what each did
  Cost cost() const { return {}; }
};

// FLOP/s of all threads with the active instruction set, measured in some 20 ms: the best of
// several bursts, since a busy neighbour can only slow one down. For products of fp32, or of bf16
// with fp32 sums where the processor has them.
double MeasurePeakFlops(DType compute);

}  // namespace tessera

#endif  // TESSERA_KERNELS_PEAK_H_
