#ifndef TESSERA_KERNELS_PRODUCT_BATCHED_MATMUL_H_
#define TESSERA_KERNELS_PRODUCT_BATCHED_MATMUL_H_

#include <type_traits>

#include "kernels/product/matmul.h"
#include "kernels/view.h"

// Products of two activations, one for each head of each sequence, where they lie: of a tensor
// [B,R,H*C] the matrix of sequence b and head h is [R,C], its rows H * C or more elements apart.
// What attention, linear attention and their kin are by definition: scores q k^T, values p v.

namespace tessera {

// One product of many, C = scale A B: that of sequence 0 and head 0, and how far the matrices of
// the next sequence and the next head lie from it, in elements. Both factors' gradients are such
// products too.
struct Batch {
  struct Step {
    int64_t sequence, head;
  };
  MatmulArgs product;
  float scale;
  Lower lower;
  Step a, b, c;
  int64_t B, H;
  constexpr int64_t groups() const { return B * H; }
  constexpr int64_t OffsetOf(const Step& s, int64_t group) const {
    return group / H * s.sequence + group % H * s.head;
  }
};

// Elements of a lower triangular matrix that are not above the diagonal.
constexpr int64_t LowerElements(int64_t rows, int64_t columns) {
  const int64_t square = rows < columns ? rows : columns;
  return square * (square + 1) / 2 + (rows - square) * columns;
}

// C[b,h] = alpha op(A[b,h]) op(B[b,h]), [M,N] = [M,K] [K,N], op by the order in which a factor is
// stored. With `lower`, the result or a factor is causal: what lies above its diagonal is 0,
// whatever a factor holds there, and costs nothing. Factors are multiplied as `precision` says.
template <class TA, class TB, class TC>
struct BatchedMatmulArgs {
  static constexpr char kName[] = "batched_matmul", kGradName[] = "batched_matmul_grad";
  View<TA> a;  // [B,M,H*K], transposed [B,K,H*M]
  View<TB> b;  // [B,K,H*N], transposed [B,N,H*K]
  View<TC> c;  // [B,M,H*N]
  int64_t B, H, M, N, K;
  Order a_order = Order::kPlain, b_order = Order::kPlain;
  Lower lower = Lower::kNone;
  float alpha = 1;
  Precision precision = Precision::kF32;

  template <class F>
  void Tensors(F&& f) {
    f.In("a", a, {B, a_rows(), H * a_columns()});
    f.In("b", b, {B, b_rows(), H * b_columns()});
    f.Out("c", c, {B, M, H * N});
  }
  int64_t a_rows() const { return a_order == Order::kPlain ? M : K; }
  int64_t a_columns() const { return a_order == Order::kPlain ? K : M; }
  int64_t b_rows() const { return b_order == Order::kPlain ? K : N; }
  int64_t b_columns() const { return b_order == Order::kPlain ? N : K; }

  Cost cost() const { return {.flops = flops(), .bytes = a_bytes() + b_bytes() + c_bytes()}; }
  // Of the gradients that are wanted.
  Cost grad_cost(const BatchedMatmulArgs& d) const {
    Cost cost;
    if (d.a) cost += {.flops = flops(), .bytes = a_bytes() + b_bytes() + c_bytes()};
    if (d.b) cost += {.flops = flops(), .bytes = a_bytes() + b_bytes() + c_bytes()};
    return cost;
  }
  int64_t flops() const {
    const int64_t dense = 2 * B * H;
    if (lower == Lower::kResult) return dense * LowerElements(M, N) * K;
    if (lower == Lower::kA) return dense * LowerElements(a_rows(), a_columns()) * N;
    if (lower == Lower::kB) return dense * LowerElements(b_rows(), b_columns()) * M;
    return dense * M * N * K;
  }
  int64_t Elements(Lower which, int64_t rows, int64_t columns) const {
    return B * H * (lower == which ? LowerElements(rows, columns) : rows * columns);
  }
  int64_t a_bytes() const {
    return Elements(Lower::kA, a_rows(), a_columns()) * int64_t{sizeof(TA)};
  }
  int64_t b_bytes() const {
    return Elements(Lower::kB, b_rows(), b_columns()) * int64_t{sizeof(TB)};
  }
  int64_t c_bytes() const { return B * H * M * N * int64_t{sizeof(TC)}; }
};

constexpr Order Flipped(Order order) {
  return order == Order::kPlain ? Order::kTransposed : Order::kPlain;
}

// One of the three tensors of a product, by its name in the forward pass, as the matrices of all
// groups: what a factor or a result of a Batch is made of.
template <class T>
struct Matrices {
  Lower name;
  View<T> view;
  int64_t rows, columns;
  Batch::Step step() const { return {rows * view.stride, columns}; }
};

template <class Args, class TX, class TY, class TZ>
Batch BatchOf(const Args& f, const Matrices<TX>& x, Order x_order, const Matrices<TY>& y,
              Order y_order, const Matrices<TZ>& z) {
  const auto factor = [](const auto& m, Order order) {
    using T = std::remove_pointer_t<decltype(m.view.data)>;
    return Factor{m.view.data, kDTypeOf<T>, m.view.stride, order};
  };
  const Lower lower = f.lower == Lower::kNone ? Lower::kNone
                      : f.lower == x.name     ? Lower::kA
                      : f.lower == y.name     ? Lower::kB
                                              : Lower::kResult;
  return {.product = {.a = factor(x, x_order),
                      .b = factor(y, y_order),
                      .c = {z.view.data, kDTypeOf<TZ>, z.view.stride, z.view.mode},
                      .M = z.rows,
                      .N = z.columns,
                      .K = x_order == Order::kPlain ? x.columns : x.rows,
                      .precision = f.precision},
          .scale = f.alpha,
          .lower = lower,
          .a = x.step(),
          .b = y.step(),
          .c = z.step(),
          .B = f.B,
          .H = f.H};
}

// The tensors of `args` as matrices of the shapes that `f` has them in.
template <class Args>
auto MatricesA(const Args& f, const Args& args) {
  return Matrices{Lower::kA, args.a, f.a_rows(), f.a_columns()};
}
template <class Args>
auto MatricesB(const Args& f, const Args& args) {
  return Matrices{Lower::kB, args.b, f.b_rows(), f.b_columns()};
}
template <class Args>
auto MatricesC(const Args& f, const Args& args) {
  return Matrices{Lower::kResult, args.c, f.M, f.N};
}

// The product, and the two of its gradient,
//   d op(A) = alpha dC op(B)^T,   d op(B) = alpha op(A)^T dC,
// both transposed where the factor is.
template <class Args>
Batch ValuesOf(const Args& f) {
  return BatchOf(f, MatricesA(f, f), f.a_order, MatricesB(f, f), f.b_order, MatricesC(f, f));
}
template <class Args>
Batch GradientOfA(const Args& f, const Args& d) {
  const auto dc = MatricesC(f, d);
  const auto b = MatricesB(f, f);
  const auto da = MatricesA(f, d);
  if (f.a_order == Order::kPlain) return BatchOf(f, dc, Order::kPlain, b, Flipped(f.b_order), da);
  return BatchOf(f, b, f.b_order, dc, Order::kTransposed, da);
}
template <class Args>
Batch GradientOfB(const Args& f, const Args& d) {
  const auto dc = MatricesC(f, d);
  const auto a = MatricesA(f, f);
  const auto db = MatricesB(f, d);
  if (f.b_order == Order::kPlain) return BatchOf(f, a, Flipped(f.a_order), dc, Order::kPlain, db);
  return BatchOf(f, dc, Order::kTransposed, a, f.a_order, db);
}

}  // namespace tessera

#endif  // TESSERA_KERNELS_PRODUCT_BATCHED_MATMUL_H_
