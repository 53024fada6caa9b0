#ifndef TESSERA_KERNELS_POINTWISE_COPY_H_
#define TESSERA_KERNELS_POINTWISE_COPY_H_

#include "core/dtype.h"
#include "kernels/cost.h"

namespace tessera {

// y = scale x, or y += scale x: rows of C elements, each array with its own distance between rows.
template <class T>
struct CopyArgs {
  static constexpr char kName[] = "copy";
  const T* x;  // [rows, C]
  int64_t x_stride;
  T* y;  // [rows, C]
  int64_t y_stride;
  Grad mode;
  float factor = 1;
  bool ones = false;             // in place of x, which is not read
  bool scaled = false;           // also times scale[0]
  const float* scale = nullptr;  // [1]
  int64_t rows, C;
  Cost cost() const {
    const bool add = mode == Grad::kAccumulate;
    const bool plain = !add && !scaled && factor == 1;
    return {.flops = plain ? 0 : rows * C * (add ? 2 : 1),
            .bytes = rows * C * int64_t{sizeof(T)} * (add ? 3 : 2)};
  }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_POINTWISE_COPY_H_
