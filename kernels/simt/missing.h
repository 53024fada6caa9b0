#ifndef TESSERA_KERNELS_SIMT_MISSING_H_
#define TESSERA_KERNELS_SIMT_MISSING_H_

#include "kernels/simt/executor.h"

namespace tessera::simt {

// Thrown by an op that has no CUDA kernel yet. missing.cc lists them: a kernel that is written
// leaves the list, or the linker finds it twice.
struct Missing : Error {
  using Error::Error;
};

}  // namespace tessera::simt

#endif  // TESSERA_KERNELS_SIMT_MISSING_H_
