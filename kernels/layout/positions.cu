#include "kernels/cuda/vector.h"
#include "kernels/layout/positions.h"

namespace tessera::TESSERA_DEVICE {
namespace {

// A thread an element.
struct PositionsBody {
  PositionsArgs a;
  template <int N>
  __device__ __forceinline__ void At(int64_t i, int64_t) const {
    a.y.data[i] = a.At(i / a.count, i % a.count);
  }
};

void Positions(const PositionsArgs& a) {
  ForElements<float>(a.B * a.count, 1, false, PositionsBody{a});
}

}  // namespace

TESSERA_DEVICE_KERNEL_OF(PositionsArgs, Positions)

}  // namespace tessera::TESSERA_DEVICE
