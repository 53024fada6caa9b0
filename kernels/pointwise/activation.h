#ifndef TESSERA_KERNELS_POINTWISE_ACTIVATION_H_
#define TESSERA_KERNELS_POINTWISE_ACTIVATION_H_

#include "core/dtype.h"
#include "kernels/pointwise/functions.h"
#include "kernels/view.h"

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

// y = scale f(x). The derivative of the identity reads no x.
template <class T_>
struct ActivationArgs {
  static constexpr char kName[] = "activation", kGradName[] = "activation_grad";
  Activation f;
  float scale = 1;
  View<T_> x;  // [rows,C]
  View<T_> y;  // [rows,C]
  int64_t rows, C;
  template <class F>
  void Tensors(F&& each) {
    each.In("x", x, {rows, C}, f == Activation::kIdentity ? kUnread : kPlain);
    each.Out("y", y, {rows, C});
  }
  Cost cost() const {
    return {.flops = rows * C * (FlopsOf(f) + (scale != 1 ? 1 : 0)),
            .bytes = 2 * rows * C * static_cast<int64_t>(sizeof(T_))};
  }
  Cost grad_cost() const {
    return {.flops = rows * C * (2 * FlopsOf(f) + 1),
            .bytes =
                (f == Activation::kIdentity ? 2 : 3) * rows * C * static_cast<int64_t>(sizeof(T_))};
  }
};

// y = f(g) u: swiglu with silu, geglu with gelu (Shazeer 2020, arXiv:2002.05202, eq. 5), a sigmoid
// gate, and with kIdentity the plain product.
template <class T_>
struct GatedArgs {
  static constexpr char kName[] = "gated", kGradName[] = "gated_grad";
  Activation f;
  View<T_> g, u;  // [rows,C]
  View<T_> y;     // [rows,C]
  int64_t rows, C;
  template <class F>
  void Tensors(F&& each) {
    each.In("g", g, {rows, C});
    each.In("u", u, {rows, C});
    each.Out("y", y, {rows, C});
  }
  Cost cost() const {
    return {.flops = rows * C * (FlopsOf(f) + 1),
            .bytes = 3 * rows * C * static_cast<int64_t>(sizeof(T_))};
  }
  Cost grad_cost() const {
    return {.flops = rows * C * (2 * FlopsOf(f) + 3),
            .bytes = 5 * rows * C * static_cast<int64_t>(sizeof(T_))};
  }
};

// y = x + scale f: a residual connection.
template <class T>
struct AddArgs {
  static constexpr char kName[] = "add";
  View<T> x, f;  // [rows,C]
  float scale = 1;
  View<T> y;  // [rows,C]
  int64_t rows, C;
  Cost cost() const {
    return {.flops = rows * C * (scale != 1 ? 2 : 1),
            .bytes = 3 * rows * C * static_cast<int64_t>(sizeof(T))};
  }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_POINTWISE_ACTIVATION_H_
