#ifndef TESSERA_OPS_PRODUCT_ARGS_H_
#define TESSERA_OPS_PRODUCT_ARGS_H_

#include "core/tensor.h"
#include "kernels/product/matmul.h"

// Tensors as the arguments of matrix products.

namespace tessera {

inline Factor FactorOf(const Tensor& t, Order order = Order::kPlain) {
  return {.data = t.raw(), .dtype = t.dtype(), .stride = t.stride(), .order = order};
}

inline Product ProductOf(const Tensor& t, Grad mode = Grad::kOverwrite) {
  return {.data = t.raw(), .dtype = t.dtype(), .stride = t.stride(), .mode = mode};
}

inline Precision PrecisionOf(DType activations) {
  return activations == DType::kBF16 ? Precision::kBF16 : Precision::kF32;
}

}  // namespace tessera

#endif  // TESSERA_OPS_PRODUCT_ARGS_H_
