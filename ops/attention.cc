#include "kernels/attention/attention.h"

#include "ops/apply.h"
#include "ops/attention.h"
#include "ops/sequence.h"

namespace tessera {

Var Attention(Context& ctx, const Var& q, const Var& k, const Var& v, const KvPast& past,
              const AttentionOptions& o) {
  const int64_t capacity = past.k.defined() ? past.k.dim(1) : 0;
  TESSERA_CHECK(o.kv_heads > 0 && o.heads % o.kv_heads == 0 && q.dim(2) % o.heads == 0 &&
                    v.dim(2) % o.kv_heads == 0,
                "%ld heads of %ld key heads over %s, %s, %s", o.heads, o.kv_heads,
                q.shape().ToString().c_str(), k.shape().ToString().c_str(),
                v.shape().ToString().c_str());
  TESSERA_CHECK(past.k.defined() == past.v.defined() && past.rows <= capacity &&
                    (capacity == 0 || past.first < capacity),
                "%ld past rows from %ld in a cache of %ld", past.rows, past.first, capacity);
  const bool past_grads = past.k.grad() != nullptr || past.v.grad() != nullptr;
  TESSERA_CHECK(!ctx.recording() || !past_grads || past.rows == capacity,
                "gradients of a cache of %ld rows, of which %ld are in use", capacity, past.rows);
  const Tensor end = o.after == 0 ? Tensor() : EndFor(ctx, q.value());
  return ByDType(q.dtype(), [&](auto tag) {
    const AttentionArgs<decltype(tag)> args{.B = q.dim(0),
                                            .T = q.dim(1),
                                            .H = o.heads,
                                            .Hkv = o.kv_heads,
                                            .K = q.dim(2) / o.heads,
                                            .V = v.dim(2) / o.kv_heads,
                                            .L = past.rows,
                                            .past_first = past.first,
                                            .past_capacity = capacity,
                                            .window = o.window,
                                            .after = o.after,
                                            .scale = o.scale,
                                            .soft_cap = o.soft_cap};
    return Apply(ctx, args, {q, k, v, past.k, past.v}, {StartFor(ctx, q.value()), end})[0];
  });
}

}  // namespace tessera
