#include "kernels/pointwise/copy.h"

#include "core/parallel.h"
#include "kernels/cpu/simd.h"

namespace tessera::TESSERA_ISA {
namespace {

template <class T>
void Copy(const CopyArgs<T>& a) {
  const int64_t grain = 1 + 65536 / (a.C + 1);
  const float scale = a.factor * (a.scaled ? a.scale[0] : 1.0f);
  ParallelRanges(a.rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      if (a.ones) {
        ForLanes(a.C, [&](int64_t i, int n) {
          T* y = a.y + r * a.y_stride + i;
          Store(y, a.mode == Grad::kAccumulate ? Load(y, n) + scale : Splat(scale), n);
        });
        continue;
      }
      const T* x = a.x + r * a.x_stride;
      T* y = a.y + r * a.y_stride;
      if (a.mode == Grad::kAccumulate) {
        ForLanes(a.C, [&](int64_t i, int n) {
          Store(y + i, Load(y + i, n) + scale * Load(x + i, n), n);
        });
      } else if (scale == 1.0f) {
        __builtin_memmove(y, x, static_cast<size_t>(a.C) * sizeof(T));
      } else {
        ForLanes(a.C, [&](int64_t i, int n) { Store(y + i, scale * Load(x + i, n), n); });
      }
    }
  });
}

}  // namespace

TESSERA_KERNEL(Copy)

}  // namespace tessera::TESSERA_ISA
