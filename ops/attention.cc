#include "kernels/attention/attention.h"

#include <algorithm>

#include "kernels/pointwise/copy.h"
#include "ops/attention.h"
#include "ops/sequence.h"

namespace tessera {
namespace {

// The widths of a call, checked against its tensors.
struct Sizes {
  int64_t B, T, K, V, capacity;

  Sizes(const Var& q, const Var& k, const Var& v, const KvPast& past, const AttentionOptions& o) {
    TESSERA_CHECK(q.shape().rank() == 3 && k.shape().rank() == 3 && v.shape().rank() == 3,
                  "attention of %s, %s, %s", q.shape().ToString().c_str(),
                  k.shape().ToString().c_str(), v.shape().ToString().c_str());
    TESSERA_CHECK(o.kv_heads > 0 && o.heads % o.kv_heads == 0, "%ld heads of %ld key heads",
                  o.heads, o.kv_heads);
    B = q.dim(0);
    T = q.dim(1);
    K = q.dim(2) / o.heads;
    V = v.dim(2) / o.kv_heads;
    capacity = past.k.defined() ? past.k.dim(1) : 0;
    TESSERA_CHECK(
        q.shape() == Shape({B, T, o.heads * K}) && k.shape() == Shape({B, T, o.kv_heads * K}) &&
            v.shape() == Shape({B, T, o.kv_heads * V}),
        "attention of %ld heads, %ld key heads over %s, %s, %s", o.heads, o.kv_heads,
        q.shape().ToString().c_str(), k.shape().ToString().c_str(), v.shape().ToString().c_str());
    TESSERA_CHECK(past.k.defined() == past.v.defined() && past.rows <= capacity &&
                      (capacity == 0 || past.first < capacity),
                  "%ld past rows from %ld in a cache of %ld", past.rows, past.first, capacity);
    if (capacity == 0) return;
    TESSERA_CHECK(past.k.shape() == Shape({B, capacity, o.kv_heads * K}) &&
                      past.v.shape() == Shape({B, capacity, o.kv_heads * V}),
                  "past keys %s and values %s", past.k.shape().ToString().c_str(),
                  past.v.shape().ToString().c_str());
  }
};

template <class T>
AttentionArgs<T> ArgsOf(const Var& q, const Var& k, const Var& v, const KvPast& past,
                        const Tensor& start, const AttentionOptions& o, const Tensor& y,
                        const Tensor& lse) {
  const Sizes s(q, k, v, past, o);
  AttentionArgs<T> a{.q = q.data<T>(),
                     .q_stride = q.stride(),
                     .k = k.data<T>(),
                     .k_stride = k.stride(),
                     .v = v.data<T>(),
                     .v_stride = v.stride(),
                     .start = start.data<int32_t>(),
                     .o = y.data<T>(),
                     .o_stride = y.stride(),
                     .lse = lse.data<float>(),
                     .B = s.B,
                     .T = s.T,
                     .H = o.heads,
                     .Hkv = o.kv_heads,
                     .K = s.K,
                     .V = s.V,
                     .L = past.rows,
                     .past_first = past.first,
                     .past_capacity = s.capacity,
                     .window = o.window,
                     .scale = o.scale,
                     .soft_cap = o.soft_cap};
  if (s.capacity > 0) {
    a.past_k = past.k.data<T>();
    a.past_k_stride = past.k.stride();
    a.past_v = past.v.data<T>();
    a.past_v_stride = past.v.stride();
  }
  return a;
}

Tensor Workspace(Context& ctx, int64_t floats) {
  return floats > 0 ? ctx.New({floats}, DType::kF32) : Tensor();
}

template <class T>
void Place(const GradSlot& slot, T** data, int64_t* stride, Grad* mode) {
  *data = slot.data<T>();
  *stride = slot.wanted() ? slot.stride() : 0;
  *mode = slot.mode;
}

}  // namespace

Var Attention(Context& ctx, const Var& q, const Var& k, const Var& v, const KvPast& past,
              const AttentionOptions& options) {
  const Sizes sizes(q, k, v, past, options);
  const bool past_grads = past.k.grad() != nullptr || past.v.grad() != nullptr;
  TESSERA_CHECK(!ctx.recording() || !past_grads || past.rows == sizes.capacity,
                "gradients of a cache of %ld rows, of which %ld are in use", sizes.capacity,
                past.rows);
  Tensor y = ctx.New({sizes.B, sizes.T, options.heads * sizes.V}, q.dtype());
  Tensor lse = ctx.New({sizes.B, options.heads, sizes.T}, DType::kF32);
  const Tensor start = StartFor(ctx, q.value());
  return ByDType(q.dtype(), [&](auto tag) {
    using T = decltype(tag);
    AttentionArgs<T> args = ArgsOf<T>(q, k, v, past, start, options, y, lse);
    const Tensor workspace = Workspace(ctx, args.workspace_floats());
    args.workspace = workspace.data<float>();
    ctx.Run(args);
    return ctx.Result(y, {q, k, v, past.k, past.v}, [=](Context& ctx, const Tensor& dy) {
      AttentionGradArgs<T> grad{.forward = ArgsOf<T>(q, k, v, past, start, options, y, lse),
                                .dout = dy.data<T>(),
                                .dout_stride = dy.stride()};
      Place(ctx.GradOf(q), &grad.dq, &grad.dq_stride, &grad.dq_mode);
      Place(ctx.GradOf(k), &grad.dk, &grad.dk_stride, &grad.dk_mode);
      Place(ctx.GradOf(v), &grad.dv, &grad.dv_stride, &grad.dv_mode);
      Place(ctx.GradOf(past.k), &grad.dpast_k, &grad.dpast_k_stride, &grad.dpast_k_mode);
      Place(ctx.GradOf(past.v), &grad.dpast_v, &grad.dpast_v_stride, &grad.dpast_v_mode);
      const Tensor workspace = Workspace(ctx, grad.workspace_floats());
      grad.workspace = workspace.data<float>();
      ctx.Run(grad);
    });
  });
}

}  // namespace tessera
