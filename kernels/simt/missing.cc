#include "kernels/simt/missing.h"

#include "kernels/dispatch.h"
#include "kernels/gla_scan.h"
#include "kernels/peak.h"
#include "kernels/ssd_scan.h"

#define MISSING(Args)                                                    \
  template <>                                                            \
  void Run(const Args&) {                                                \
    throw Missing(std::string(Args::kName) + " has no CUDA kernel yet"); \
  }
#define MISSING_BOTH(Op)   \
  MISSING(Op##Args<float>) \
  MISSING(Op##Args<bf16>)

namespace tessera::simt {

MISSING_BOTH(GlaScan)
MISSING_BOTH(GlaScanGrad)
MISSING_BOTH(Peak)
MISSING_BOTH(SsdScan)
MISSING_BOTH(SsdScanGrad)

}  // namespace tessera::simt
