#include "kernels/scan/ssd_scan.h"

#include "ops/dense.h"
#include "ops/scan.h"
#include "ops/sequence.h"

namespace tessera {
namespace {

template <class T>
SsdScanArgs<T> ArgsOf(const SsdInputs& in, const Tensor& start, const Tensor& y) {
  const int64_t B = in.x.dim(0), tokens = in.x.dim(1), H = in.A_log.value().elements();
  const int64_t P = in.x.dim(2) / H, N = in.N, G = in.b.dim(2) / N;
  TESSERA_CHECK(G > 0 && H % G == 0, "an SSD scan of %ld heads in %ld groups", H, G);
  TESSERA_CHECK(in.x.shape() == Shape({B, tokens, H * P}) &&
                    in.dt.shape() == Shape({B, tokens, H}) &&
                    in.b.shape() == Shape({B, tokens, G * N}) && in.c.shape() == in.b.shape(),
                "an SSD scan of %ld heads over x %s, dt %s, B %s, C %s", H,
                in.x.shape().ToString().c_str(), in.dt.shape().ToString().c_str(),
                in.b.shape().ToString().c_str(), in.c.shape().ToString().c_str());
  TESSERA_CHECK(!in.state.defined() || in.state.shape() == Shape({B, H, N, P}),
                "an SSD state of %s, not [%ld,%ld,%ld,%ld]", in.state.shape().ToString().c_str(), B,
                H, N, P);
  return {.x = in.x.data<T>(),
          .x_stride = in.x.stride(),
          .dt = in.dt.data<T>(),
          .dt_stride = in.dt.stride(),
          .b = in.b.data<T>(),
          .b_stride = in.b.stride(),
          .c = in.c.data<T>(),
          .c_stride = in.c.stride(),
          .A_log = Dense(in.A_log),
          .dt_bias = Dense(in.dt_bias),
          .D = Dense(in.D),
          .state = Dense(in.state),
          .start = start.data<int32_t>(),
          .y = y.data<T>(),
          .y_stride = y.stride(),
          .B = B,
          .T = tokens,
          .H = H,
          .G = G,
          .N = N,
          .P = P};
}

template <class P>
void Place(const GradSlot& slot, P** data, int64_t* stride, Grad* mode) {
  *data = slot.data<P>();
  *stride = slot.wanted() ? slot.stride() : 0;
  *mode = slot.mode;
}
void Place(const GradSlot& slot, float** data, Grad* mode) {
  *data = slot.data<float>();
  *mode = slot.mode;
}

}  // namespace

Scanned SsdScan(Context& ctx, const SsdInputs& in, LastState last) {
  return ByDType(in.x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const Tensor y = ctx.New(in.x.shape(), in.x.dtype()), start = StartFor(ctx, in.x.value());
    SsdScanArgs<T> args = ArgsOf<T>(in, start, y);
    std::vector<Tensor> results = {y};
    if (last == LastState::kKeep) {
      results.push_back(ctx.New({args.B, args.H, args.N, args.P}, DType::kF32));
      args.last_state = results[1].data<float>();
    }
    Tensor kept;
    if (ctx.recording() && args.chunk_states_floats() > 0) {
      kept = ctx.New({args.chunk_states_floats()}, DType::kF32);
      args.chunk_states = kept.data<float>();
    }
    ctx.Run(args);
    const std::vector<Var> inputs = {in.x, in.dt, in.b, in.c, in.A_log, in.dt_bias, in.D, in.state};
    const auto vars =
        ctx.Results(results, inputs, [=](Context& ctx, std::span<const Tensor> grads) {
          SsdScanGradArgs<T> g{.forward = ArgsOf<T>(in, start, Tensor())};
          g.forward.chunk_states = kept.data<float>();
          g.dy = grads[0].data<T>();
          g.dy_stride = grads[0].defined() ? grads[0].stride() : 0;
          if (grads.size() > 1) g.dlast_state = grads[1].data<float>();
          Place(ctx.GradOf(in.x), &g.dx, &g.dx_stride, &g.dx_mode);
          Place(ctx.GradOf(in.dt), &g.ddt, &g.ddt_stride, &g.ddt_mode);
          Place(ctx.GradOf(in.b), &g.db, &g.db_stride, &g.db_mode);
          Place(ctx.GradOf(in.c), &g.dc, &g.dc_stride, &g.dc_mode);
          Place(ctx.GradOf(in.A_log), &g.dA_log, &g.dA_log_mode);
          Place(ctx.GradOf(in.dt_bias), &g.ddt_bias, &g.ddt_bias_mode);
          Place(ctx.GradOf(in.D), &g.dD, &g.dD_mode);
          Place(ctx.GradOf(in.state), &g.dstate, &g.dstate_mode);
          const Tensor workspace = ctx.New({g.workspace_floats()}, DType::kF32);
          g.workspace = workspace.data<float>();
          ctx.Run(g);
        });
    return Scanned{vars[0], vars.size() > 1 ? vars[1] : Var()};
  });
}

}  // namespace tessera
