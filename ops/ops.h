#ifndef TESSERA_OPS_OPS_H_
#define TESSERA_OPS_OPS_H_

#include <span>
#include <vector>

#include "kernels/activation.h"
#include "kernels/causal_conv.h"
#include "kernels/expert_activation.h"
#include "kernels/norm.h"
#include "kernels/rope.h"
#include "ops/context.h"
#include "ops/routing.h"

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
// Rows [offsets[e], offsets[e+1]) of x through expert e: x [rows,K] sorted by expert, weight
// [E,N,K], offsets int32 [E+1], bias [E,N] or undefined. Rows from offsets[E] on are left
// undefined, in y and in the gradient of x.
Var GroupedLinear(Context& ctx, const Var& x, const Var& weight, const Tensor& offsets,
                  const Var& bias = Var());

// --- Pointwise (ops/pointwise.cc) ---
// scale f(x).
Var Activate(Context& ctx, Activation f, const Var& x, float scale = 1);
// f(g) u: swiglu and geglu of the halves of a projection (Split), gates, products.
Var Gated(Context& ctx, Activation f, const Var& g, const Var& u);
// x + scale f.
Var Add(Context& ctx, const Var& x, const Var& f, float scale = 1);
// factor x.
Var Scale(Context& ctx, const Var& x, float factor);

// --- Norms (ops/norm.cc) ---
// Of each token's channels, or of each of `groups` groups of them. gain is [D], [D/groups] shared
// by the groups, or undefined; bias is [D] or undefined.
Var RmsNorm(Context& ctx, const Var& x, const Var& gain, float eps, int64_t groups = 1);
Var LayerNorm(Context& ctx, const Var& x, const Var& gain, const Var& bias, float eps,
              int64_t groups = 1);
// x + scale f, and the norm of that, in one pass over memory.
struct SumAndNorm {
  Var sum, y;
};
SumAndNorm AddRmsNorm(Context& ctx, const Var& x, const Var& f, float scale, const Var& gain,
                      float eps);
SumAndNorm AddLayerNorm(Context& ctx, const Var& x, const Var& f, float scale, const Var& gain,
                        const Var& bias, float eps);
// With silu(z) before or after the norm.
Var GatedRmsNorm(Context& ctx, const Var& x, const Var& z, const Var& gain, NormGate gate,
                 float eps, int64_t groups = 1);

// --- Attention (ops/attention.cc, ops/rope.cc) ---
struct AttentionOptions {
  int64_t heads, kv_heads;  // kv_heads divides heads
  int64_t window = 0;       // keys that a query sees, itself included; 0: all
  float scale;
  float soft_cap = 0;  // 0: none
};
// The keys and values before this chunk: [B,capacity,kv_heads*(K|V)], of which `rows` are in use, a
// ring that begins at row `first`. Undefined: none.
struct KvPast {
  Var k, v;
  int64_t rows = 0, first = 0;
};
// q [B,T,heads*K], k [B,T,kv_heads*K], v [B,T,kv_heads*V] -> [B,T,heads*V]. Documents are those of
// ctx.position.
Var Attention(Context& ctx, const Var& q, const Var& k, const Var& v, const KvPast& past,
              const AttentionOptions& options);
// Turns the heads of x [B,T,heads*K] by the angles of ctx.position.
Var Rope(Context& ctx, const Var& x, int64_t heads, const RopeRotation& rotation);
// The last `keep` rows of a and then b along time: [B,Ta,C], [B,Tb,C] -> [B,min(Ta + Tb, keep),C].
// a may be undefined. How a cache of keys goes on in training.
Var LastRows(Context& ctx, const Var& a, const Var& b, int64_t keep);
// Writes x [B,T,C] into a ring [B,capacity,C] in place: row t to slot (first + t) mod capacity, the
// last `capacity` rows where T is more. How a cache goes on in generation; no gradient.
void WriteRows(Context& ctx, const Tensor& cache, int64_t first, const Tensor& x);

// --- Scans (ops/causal_conv.cc, ops/ssd_scan.cc, ops/gla_scan.cc) ---
// A scan's outputs, and its state after the last token where that was asked for.
enum class LastState : uint8_t { kDrop, kKeep };
struct Scanned {
  Var y, state;
};
// A short depthwise convolution of x [B,T,C] with weight [C,W]; bias [C] and state [B,W-1,C] may be
// undefined. Documents are those of ctx.position, here and in the scans.
struct ConvInputs {
  Var x, weight, bias, state;
  ConvActivation activation = ConvActivation::kNone;
};
Scanned CausalConv(Context& ctx, const ConvInputs& in, LastState last);
// Mamba-2's scan of x [B,T,H*P] with raw step sizes dt [B,T,H], b and c [B,T,G*N], and A_log,
// dt_bias, D [H]; D and state [B,H,N,P] may be undefined.
struct SsdInputs {
  Var x, dt, b, c, A_log, dt_bias, D, state;
  int64_t N;
};
Scanned SsdScan(Context& ctx, const SsdInputs& in, LastState last);
// Gated linear attention of q, k [B,T,heads*K] and v [B,T,heads*V] with log gates g <= 0 like k;
// state [B,heads,K,V] may be undefined.
struct GlaInputs {
  Var q, k, v, g, state;
  int64_t heads;
  float scale;
};
Scanned GlaScan(Context& ctx, const GlaInputs& in, LastState last);

// --- Mixture of experts (ops/routing.cc, ops/permute.cc, ops/expert_activation.cc) ---
// x [...,D] times the router's weight [E,D]: fp32 [R,E] whatever the compute type.
Var RouterLogits(Context& ctx, const Var& x, const Var& weight);
// Chooses the experts of each token. Adds the losses that the options ask for to the objective and
// reports the metrics load [E], max_violation, dropped and router_entropy. The losses and the
// capacity are for training: without ctx.training no token is dropped.
Routing Route(Context& ctx, const Var& logits, const RoutingOptions& options);
// Tokens x [...,D] to the rows of experts [R k, D], and those back to tokens of `shape`, weighted.
// Rows of no expert are undefined.
Var Permute(Context& ctx, const Var& x, const Routing& routing);
Var Combine(Context& ctx, const Var& x, const Routing& routing, const Shape& shape);
// Combine(GroupedLinear(f(GroupedLinear(Permute(x))))) without copies of tokens: the first product
// gathers its rows from tokens x [...,D] (weight [E,N,D]); the activation multiplies by the routing
// weights; the last product sums the rows of each token into `shape` (weight [E,D,F]).
Var DispatchLinear(Context& ctx, const Var& x, const Var& weight, const Routing& routing);
Var ExpertActivation(Context& ctx, Activation f, Gating gating, const Var& x,
                     const Routing& routing);
Var CombineLinear(Context& ctx, const Var& x, const Var& weight, const Routing& routing,
                  const Shape& shape);
// The same activation of all rows of x, each times its weight, fp32 [rows]; undefined: 1.
Var WeightedActivation(Context& ctx, Activation f, Gating gating, const Var& x,
                       const Var& weight = Var());

// --- Ends of the model (ops/embedding.cc, ops/head_loss.cc) ---
// Rows of table [V,D] for tokens int32 [B,T]: [B,T,D] of the compute type.
Var Embedding(Context& ctx, const Tensor& tokens, const Var& table);
// The mean cross-entropy, in nats, of the predictions hidden [...,D] head [V,D]^T against targets
// int32 (one a row of hidden; negative: does not count), as fp32 [1]. Works through the rows block
// by block: the logits of the whole batch never exist. Where a gradient is wanted it is computed
// along with the loss.
Var HeadLoss(Context& ctx, const Var& hidden, const Var& head, const Tensor& targets);

}  // namespace tessera

#endif  // TESSERA_OPS_OPS_H_
