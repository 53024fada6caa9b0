#ifndef TESSERA_KERNELS_COST_H_
#define TESSERA_KERNELS_COST_H_

#include <cstdint>

namespace tessera {

// What one call of a kernel does, a function of its shapes alone. A multiply-add is two FLOPs; an
// exp, a division or a square root is one. Bytes are the least that must move: every input read
// once, every output written once.
struct Cost {
  int64_t flops = 0;
  int64_t bytes = 0;
  Cost& operator+=(const Cost& o) {
    flops += o.flops;
    bytes += o.bytes;
    return *this;
  }
};

// How a kernel treats the gradient it writes: the first contribution of a step overwrites, later
// ones add.
enum class Grad : uint8_t { kOverwrite, kAccumulate };

}  // namespace tessera

#endif  // TESSERA_KERNELS_COST_H_
