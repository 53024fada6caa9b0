#ifndef TESSERA_KERNELS_POINTWISE_ACTIVATION_H_
#define TESSERA_KERNELS_POINTWISE_ACTIVATION_H_

#include "core/dtype.h"
#include "kernels/cost.h"
#include "kernels/pointwise/functions.h"

// The functions of kernels/pointwise/functions.h over tensors, and gated products of two.

namespace tessera {

#define TESSERA_ROW(F) k##F,
enum class Activation : uint8_t { TESSERA_FUNCTIONS(TESSERA_ROW) };
#undef TESSERA_ROW
#define TESSERA_ROW(F) Activation::k##F,
inline constexpr Activation kActivations[] = {TESSERA_FUNCTIONS(TESSERA_ROW)};
#undef TESSERA_ROW

constexpr const char* Name(Activation f) {
#define TESSERA_ROW(F) functions::F::kName,
  constexpr const char* kNames[] = {TESSERA_FUNCTIONS(TESSERA_ROW)};
#undef TESSERA_ROW
  return kNames[static_cast<int>(f)];
}
// What one value of f costs, and one of its derivative.
constexpr int64_t FlopsOf(Activation f) {
#define TESSERA_ROW(F) functions::F::kFlops,
  constexpr int64_t kFlops[] = {TESSERA_FUNCTIONS(TESSERA_ROW)};
#undef TESSERA_ROW
  return kFlops[static_cast<int>(f)];
}

// y = scale f(x).
template <class T>
struct ActivationArgs {
  static constexpr char kName[] = "activation";
  Activation f;
  float scale = 1;
  const T* x;  // [rows, C]
  int64_t x_stride;
  T* y;  // [rows, C]
  int64_t y_stride;
  int64_t rows, C;
  Cost cost() const {
    return {.flops = rows * C * (FlopsOf(f) + (scale != 1 ? 1 : 0)),
            .bytes = 2 * rows * C * static_cast<int64_t>(sizeof(T))};
  }
};

// dx = scale f'(x) dy.
template <class T>
struct ActivationGradArgs {
  static constexpr char kName[] = "activation_grad";
  Activation f;
  float scale = 1;
  const T *x, *dy;  // x may be null for kIdentity
  int64_t x_stride, dy_stride;
  T* dx;
  int64_t dx_stride;
  Grad dx_mode;
  int64_t rows, C;
  Cost cost() const {
    return {
        .flops = rows * C * (2 * FlopsOf(f) + 1),
        .bytes = (f == Activation::kIdentity ? 2 : 3) * rows * C * static_cast<int64_t>(sizeof(T))};
  }
};

// y = f(g) u: swiglu with silu, geglu with gelu (Shazeer 2020, arXiv:2002.05202, eq. 5), a sigmoid
// gate, and with kIdentity the plain product.
template <class T>
struct GatedArgs {
  static constexpr char kName[] = "gated";
  Activation f;
  const T *g, *u;  // [rows, C]
  int64_t g_stride, u_stride;
  T* y;  // [rows, C]
  int64_t y_stride;
  int64_t rows, C;
  Cost cost() const {
    return {.flops = rows * C * (FlopsOf(f) + 1),
            .bytes = 3 * rows * C * static_cast<int64_t>(sizeof(T))};
  }
};

template <class T>
struct GatedGradArgs {
  static constexpr char kName[] = "gated_grad";
  Activation f;
  const T *g, *u, *dy;
  int64_t g_stride, u_stride, dy_stride;
  T* dg = nullptr;
  int64_t dg_stride = 0;
  Grad dg_mode = Grad::kOverwrite;
  T* du = nullptr;
  int64_t du_stride = 0;
  Grad du_mode = Grad::kOverwrite;
  int64_t rows, C;
  Cost cost() const {
    return {.flops = rows * C * (2 * FlopsOf(f) + 3),
            .bytes = 5 * rows * C * static_cast<int64_t>(sizeof(T))};
  }
};

// y = x + scale f: a residual connection.
template <class T>
struct AddArgs {
  static constexpr char kName[] = "add";
  const T *x, *f;  // [rows, C]
  int64_t x_stride, f_stride;
  float scale = 1;
  T* y;  // [rows, C]
  int64_t y_stride;
  int64_t rows, C;
  Cost cost() const {
    return {.flops = rows * C * (scale != 1 ? 2 : 1),
            .bytes = 3 * rows * C * static_cast<int64_t>(sizeof(T))};
  }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_POINTWISE_ACTIVATION_H_
