#ifndef TESSERA_OPS_OPS_H_
#define TESSERA_OPS_OPS_H_

#include <span>
#include <vector>

#include "ops/context.h"

// The vocabulary of block writers: every differentiable operation, on Vars. Activations are [B,T,C]
// of the context's compute type, parameters and states fp32. Equations, papers and the meaning of
// each argument stand in kernels/x.h of the same name. A call with wrong shapes is a programmer's
// mistake and stops the program with the shapes.

namespace tessera {

// --- Shapes (ops/shape.cc) ---
// Columns of x in consecutive parts of the given widths: views, and so are their gradients. The
// widths add up to x's.
std::vector<Var> Split(Context& ctx, const Var& x, std::span<const int64_t> widths);

// --- Products (ops/linear.cc) ---
// x W^T + bias: x [...,K], weight [N,K], bias [N] or undefined.
Var Linear(Context& ctx, const Var& x, const Var& weight, const Var& bias = Var());

// --- Pointwise (ops/pointwise.cc) ---

// --- Norms (ops/norm.cc) ---

// --- Attention (ops/attention.cc, ops/rope.cc) ---

// --- Scans (ops/causal_conv.cc, ops/ssd_scan.cc, ops/gla_scan.cc) ---

// --- Mixture of experts (ops/routing.cc, ops/permute.cc) ---

// --- Ends of the model (ops/embedding.cc, ops/head_loss.cc) ---

}  // namespace tessera

#endif  // TESSERA_OPS_OPS_H_
