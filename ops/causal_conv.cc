#include "kernels/convolution/causal_conv.h"

#include "ops/convolution.h"
#include "ops/dense.h"
#include "ops/sequence.h"

namespace tessera {
namespace {

template <class T>
CausalConvArgs<T> ArgsOf(const ConvInputs& in, const Tensor& start, const Tensor& y) {
  const int64_t B = in.x.dim(0), tokens = in.x.dim(1), C = in.x.dim(2), W = in.weight.dim(1);
  TESSERA_CHECK(in.weight.shape() == Shape({C, W}) && W >= 2 && W <= CausalConvArgs<T>::kMaxWidth,
                "a convolution of %s with taps %s", in.x.shape().ToString().c_str(),
                in.weight.shape().ToString().c_str());
  TESSERA_CHECK(!in.bias.defined() || in.bias.shape() == Shape({C}),
                "a bias of %s for %ld channels", in.bias.shape().ToString().c_str(), C);
  TESSERA_CHECK(!in.state.defined() || in.state.shape() == Shape({B, W - 1, C}),
                "a convolution's state of %s, not [%ld,%ld,%ld]",
                in.state.shape().ToString().c_str(), B, W - 1, C);
  return {.x = in.x.data<T>(),
          .x_stride = in.x.stride(),
          .weight = Dense(in.weight),
          .bias = Dense(in.bias),
          .state = Dense(in.state),
          .start = start.data<int32_t>(),
          .y = y.data<T>(),
          .y_stride = y.stride(),
          .B = B,
          .T = tokens,
          .C = C,
          .W = W,
          .activation = in.activation};
}

}  // namespace

Scanned CausalConv(Context& ctx, const ConvInputs& in, LastState last) {
  return ByDType(in.x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const Tensor y = ctx.New(in.x.shape(), in.x.dtype()), start = StartFor(ctx, in.x.value());
    CausalConvArgs<T> args = ArgsOf<T>(in, start, y);
    std::vector<Tensor> results = {y};
    if (last == LastState::kKeep) {
      results.push_back(ctx.New({args.B, args.W - 1, args.C}, DType::kF32));
      args.last_state = results[1].data<float>();
    }
    ctx.Run(args);
    const auto vars =
        ctx.Results(results, {in.x, in.weight, in.bias, in.state},
                    [=](Context& ctx, std::span<const Tensor> grads) {
                      CausalConvGradArgs<T> g{.forward = ArgsOf<T>(in, start, Tensor())};
                      g.dy = grads[0].data<T>();
                      g.dy_stride = grads[0].defined() ? grads[0].stride() : 0;
                      if (grads.size() > 1) g.dlast_state = grads[1].data<float>();
                      const GradSlot dx = ctx.GradOf(in.x), dweight = ctx.GradOf(in.weight),
                                     dbias = ctx.GradOf(in.bias), dstate = ctx.GradOf(in.state);
                      g.dx = dx.data<T>();
                      g.dx_stride = dx.wanted() ? dx.stride() : 0;
                      g.dx_mode = dx.mode;
                      g.dweight = dweight.data<float>();
                      g.dweight_mode = dweight.mode;
                      g.dbias = dbias.data<float>();
                      g.dbias_mode = dbias.mode;
                      g.dstate = dstate.data<float>();
                      g.dstate_mode = dstate.mode;
                      const Tensor workspace = ctx.New({g.workspace_floats()}, DType::kF32);
                      g.workspace = workspace.data<float>();
                      ctx.Run(g);
                    });
    return Scanned{vars[0], vars.size() > 1 ? vars[1] : Var()};
  });
}

}  // namespace tessera
