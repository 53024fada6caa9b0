#include "kernels/scan/gla_scan.h"

#include "ops/dense.h"
#include "ops/scan.h"
#include "ops/sequence.h"

namespace tessera {
namespace {

template <class T>
GlaScanArgs<T> ArgsOf(const GlaInputs& in, const Tensor& start, const Tensor& o) {
  const int64_t B = in.q.dim(0), tokens = in.q.dim(1), H = in.heads;
  const int64_t K = in.q.dim(2) / H, V = in.v.dim(2) / H;
  TESSERA_CHECK(in.q.shape() == Shape({B, tokens, H * K}) && in.k.shape() == in.q.shape() &&
                    in.g.shape() == in.q.shape() && in.v.shape() == Shape({B, tokens, H * V}),
                "a GLA scan of %ld heads over q %s, k %s, v %s, g %s", H,
                in.q.shape().ToString().c_str(), in.k.shape().ToString().c_str(),
                in.v.shape().ToString().c_str(), in.g.shape().ToString().c_str());
  TESSERA_CHECK(!in.state.defined() || in.state.shape() == Shape({B, H, K, V}),
                "a GLA state of %s, not [%ld,%ld,%ld,%ld]", in.state.shape().ToString().c_str(), B,
                H, K, V);
  return {.q = in.q.data<T>(),
          .q_stride = in.q.stride(),
          .k = in.k.data<T>(),
          .k_stride = in.k.stride(),
          .v = in.v.data<T>(),
          .v_stride = in.v.stride(),
          .g = in.g.data<T>(),
          .g_stride = in.g.stride(),
          .state = Dense(in.state),
          .start = start.data<int32_t>(),
          .o = o.data<T>(),
          .o_stride = o.stride(),
          .B = B,
          .T = tokens,
          .H = H,
          .K = K,
          .V = V,
          .scale = in.scale};
}

template <class T>
void Place(const GradSlot& slot, T** data, int64_t* stride, Grad* mode) {
  *data = slot.data<T>();
  *stride = slot.wanted() ? slot.stride() : 0;
  *mode = slot.mode;
}

}  // namespace

Scanned GlaScan(Context& ctx, const GlaInputs& in, LastState last) {
  return ByDType(in.q.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const Tensor o = ctx.New(in.v.shape(), in.v.dtype()), start = StartFor(ctx, in.q.value());
    GlaScanArgs<T> args = ArgsOf<T>(in, start, o);
    std::vector<Tensor> results = {o};
    if (last == LastState::kKeep) {
      results.push_back(ctx.New({args.B, args.H, args.K, args.V}, DType::kF32));
      args.last_state = results[1].data<float>();
    }
    Tensor kept;
    if (ctx.recording() && args.kept_floats() > 0) {
      kept = ctx.New({args.kept_floats()}, DType::kF32);
      args.kept = kept.data<float>();
    }
    ctx.Run(args);
    const auto vars = ctx.Results(results, {in.q, in.k, in.v, in.g, in.state},
                                  [=](Context& ctx, std::span<const Tensor> grads) {
                                    GlaScanGradArgs<T> g{.forward = ArgsOf<T>(in, start, Tensor())};
                                    g.forward.kept = kept.data<float>();
                                    g.dout = grads[0].data<T>();
                                    g.dout_stride = grads[0].defined() ? grads[0].stride() : 0;
                                    if (grads.size() > 1) g.dlast_state = grads[1].data<float>();
                                    Place(ctx.GradOf(in.q), &g.dq, &g.dq_stride, &g.dq_mode);
                                    Place(ctx.GradOf(in.k), &g.dk, &g.dk_stride, &g.dk_mode);
                                    Place(ctx.GradOf(in.v), &g.dv, &g.dv_stride, &g.dv_mode);
                                    Place(ctx.GradOf(in.g), &g.dg, &g.dg_stride, &g.dg_mode);
                                    const GradSlot dstate = ctx.GradOf(in.state);
                                    g.dstate = dstate.data<float>();
                                    g.dstate_mode = dstate.mode;
                                    ctx.Run(g);
                                  });
    return Scanned{vars[0], vars.size() > 1 ? vars[1] : Var()};
  });
}

}  // namespace tessera
