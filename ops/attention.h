#ifndef TESSERA_OPS_ATTENTION_H_
#define TESSERA_OPS_ATTENTION_H_

#include "kernels/attention/rope.h"
#include "ops/context.h"

// Softmax attention, rotary positions, and caches of keys and values. As all ops: see ops/ops.h.

namespace tessera {

struct AttentionOptions {
  int64_t heads, kv_heads;  // kv_heads divides heads
  int64_t window = 0;       // keys that a query sees up to its own, that included; 0: all
  int64_t after = 0;        // keys behind its own that it sees; 0: causal; negative: all
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
// ctx.start.
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

}  // namespace tessera

#endif  // TESSERA_OPS_ATTENTION_H_
