#ifndef TESSERA_KERNELS_VIEW_H_
#define TESSERA_KERNELS_VIEW_H_

#include <cstdint>
#include <initializer_list>

#include "kernels/cost.h"

// How the arguments of a kernel name its tensors, once for all that needs them. An op's Args struct
// has sizes, a View for each tensor, and one list of them:
//
//   template <class T>
//   struct PoolArgs {
//     static constexpr char kName[] = "pool", kGradName[] = "pool_grad";
//     View<T> x;  // [B,T,C]
//     View<T> y;  // [B,ceil(T/n),C]
//     int64_t B, T, C, n;
//     template <class F>
//     void Tensors(F&& f) {
//       f.In("x", x, {B, T, C}, kUnread);
//       f.Out("y", y, {B, pooled(), C});
//     }
//     Cost cost() const;
//     Cost grad_cost() const;
//   };
//
// Besides, a list may have Index (int32, without a gradient), Kept (made by the forward pass for
// the derivative), Workspace and GradWorkspace (memory of the forward pass and of the derivative,
// for as long as each runs).
//
// From the list follow what Apply (ops/apply.h) does for every op alike (checks of shapes and
// types, strides, allocation, what the tape keeps, the places of gradients), the arguments of the
// derivative (Gradient<PoolArgs<T>>), and the shapes in the messages of a device.

namespace tessera {

// Rows of contiguous elements, `stride` elements apart. Absent where the stride is 0; on the meta
// device a tensor is present without data.
template <class T>
struct View {
  T* data = nullptr;
  int64_t stride = 0;
  Grad mode = Grad::kOverwrite;  // of a gradient that a kernel writes
  constexpr explicit operator bool() const { return stride != 0; }
  constexpr T* Row(int64_t row) const { return data + row * stride; }
};

// What a list says of a tensor besides its name and shape, added up.
enum TensorUse : unsigned {
  kPlain = 0,
  kOptional = 1,   // may be absent: an input that is undefined, an output that is not asked for
  kUnread = 2,     // of an input: its derivative does not read it, so the tape does not keep it
  kReread = 4,     // of an output: its derivative reads it
  kDense = 8,      // rows follow one another without a gap
  kConstant = 16,  // of an input: it has no derivative
};

// A shape in a list: up to six sizes.
using Dims = std::initializer_list<int64_t>;

// The arguments of an op's derivative. In `forward` stand the inputs that the derivative reads, the
// outputs that it rereads and what was kept; in `d` the gradient of each output where it arrived,
// to be read, and the place of each input's where it is wanted, to be written as its mode says.
// Both lists are the op's own.
template <class Args>
struct Gradient {
  static constexpr const char* kName = Args::kGradName;
  Args forward;
  Args d;
  // grad_cost(d) of an op whose gradients that are not wanted cost nothing.
  Cost cost() const {
    if constexpr (requires { forward.grad_cost(d); })
      return forward.grad_cost(d);
    else
      return forward.grad_cost();
  }
  int64_t CudaScratch() const requires requires(const Args& a) { a.GradCudaScratch(); }
  { return forward.GradCudaScratch(); }
  auto CudaLimit() const requires requires(const Args& a) { a.CudaLimit(); }
  { return forward.CudaLimit(); }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_VIEW_H_
