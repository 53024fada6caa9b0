#include "kernels/cuda/vector.h"
#include "kernels/layout/positions.h"

namespace tessera::TESSERA_DEVICE {
namespace {

// A thread an element.
struct PositionsBody {
  PositionsArgs a;
  template <int N>
  __device__ __forceinline__ void At(int64_t i, int64_t) const {
    a.y.data[i] =
        a.x.Row(i / a.count)[a.first + i % a.count * a.step] / static_cast<int32_t>(a.divisor);
  }
};

void Positions(const PositionsArgs& a) {
  ForElements<float>(a.B * a.count, 1, false, PositionsBody{a});
}

}  // namespace

TESSERA_DEVICE_KERNEL_OF(PositionsArgs, Positions)

}  // namespace tessera::TESSERA_DEVICE
