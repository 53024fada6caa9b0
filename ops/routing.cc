#include <algorithm>
#include <cmath>

#include "ops/experts.h"
#include "ops/product_args.h"

namespace tessera {

int64_t ExpertCapacity(double factor, int64_t R, int64_t k, int64_t E) {
  const double rows = factor * static_cast<double>(R * k) / static_cast<double>(E);
  return std::clamp<int64_t>(static_cast<int64_t>(std::ceil(rows)), 1, R);
}

namespace {

RoutingArgs ArgsOf(Context& ctx, const Var& logits, const RoutingOptions& o, const Routing& r,
                   const Tensor& lse, const Tensor& load, const Tensor& statistics) {
  const bool limited = ctx.training && o.capacity_factor.has_value();
  return {.logits = logits.data<float>(),
          .logits_stride = logits.stride(),
          .R = r.R,
          .E = r.E,
          .k = r.k,
          .softmax = o.softmax,
          .scale = static_cast<float>(o.scale),
          .capacity = limited ? ExpertCapacity(*o.capacity_factor, r.R, r.k, r.E) : 0,
          .weight = r.weight.data<float>(),
          .expert = r.expert.data<int32_t>(),
          .lse = lse.data<float>(),
          .offsets = r.offsets.data<int32_t>(),
          .row_of = r.row_of.data<int32_t>(),
          .slot_of = r.slot_of.data<int32_t>(),
          .token_of = r.token_of.data<int32_t>(),
          .load = load.data<float>(),
          .statistics = statistics.data<float>()};
}

void Report(Context& ctx, const RoutingOptions& o, const Tensor& load, const Tensor& statistics) {
  ctx.Metric("load", load);
  ctx.Metric("max_violation", statistics.Slice(kMaxViolation, 1));
  ctx.Metric("dropped", statistics.Slice(kDropped, 1));
  ctx.Metric("router_entropy", statistics.Slice(kEntropy, 1));
  if (!ctx.training) return;
  // Their gradients are the router's own (RoutingGradArgs).
  if (o.balance_loss > 0)
    ctx.AddLoss("balance_loss", o.balance_loss, Var(statistics.Slice(kBalanceLoss, 1)));
  if (o.z_loss > 0) ctx.AddLoss("z_loss", o.z_loss, Var(statistics.Slice(kZLoss, 1)));
}

}  // namespace

Routing Route(Context& ctx, const Var& logits, const RoutingOptions& o) {
  const int64_t R = logits.rows(), E = logits.dim(-1), k = o.top_k;
  TESSERA_CHECK(logits.dtype() == DType::kF32, "router logits of %s", Name(logits.dtype()));
  TESSERA_CHECK(R >= 1 && k >= 1 && k <= E && k <= kMaxChoices && R * k <= INT32_MAX,
                "%ld of %ld experts for each of %ld tokens", k, E, R);
  Routing r{.R = R,
            .E = E,
            .k = k,
            .weight = Var(ctx.New({R, k}, DType::kF32)),
            .expert = ctx.New({R, k}, DType::kI32),
            .offsets = ctx.New({E + 1}, DType::kI32),
            .row_of = ctx.New({R, k}, DType::kI32),
            .slot_of = ctx.New({R * k}, DType::kI32),
            .token_of = ctx.New({R * k}, DType::kI32)};
  const Tensor lse = ctx.New({R}, DType::kF32), load = ctx.New({E}, DType::kF32),
               statistics = ctx.New({kRoutingStatistics}, DType::kF32);
  RoutingArgs args = ArgsOf(ctx, logits, o, r, lse, load, statistics);
  const Tensor histogram = ctx.New({RoutingBlocks(R), E}, DType::kI32),
               partial = ctx.New({RoutingBlocks(R), E + 2}, DType::kF32),
               first_drop = ctx.New({E}, DType::kI32);
  args.histogram = histogram.data<int32_t>();
  args.partial = partial.data<float>();
  args.first_drop = first_drop.data<int32_t>();
  ctx.Run(args);
  Report(ctx, o, load, statistics);
  // Losses are part of the objective in training only.
  const double balance = ctx.training ? o.balance_loss : 0, z = ctx.training ? o.z_loss : 0;
  const Tensor expert = r.expert, row_of = r.row_of;
  if (!ctx.recording() || logits.grad() == nullptr) return r;
  r.weight = Leaf(r.weight.value());
  // The losses have gradients where nobody uses the weights, too.
  ctx.Record([=, weight = r.weight.grad()](Context& ctx) {
    if (!weight->started && balance == 0 && z == 0) return;
    const Tensor dweight = weight->started ? weight->grad : ctx.Zeros({R, k}, DType::kF32);
    const GradSlot d = ctx.GradOf(logits);
    ctx.Run(RoutingGradArgs{.logits = logits.data<float>(),
                            .logits_stride = logits.stride(),
                            .expert = expert.data<int32_t>(),
                            .row_of = row_of.data<int32_t>(),
                            .lse = lse.data<float>(),
                            .load = load.data<float>(),
                            .dweight = dweight.data<float>(),
                            .R = R,
                            .E = E,
                            .k = k,
                            .softmax = o.softmax,
                            .scale = static_cast<float>(o.scale),
                            .balance = static_cast<float>(balance),
                            .z = static_cast<float>(z),
                            .loss_scale = ctx.loss_scale.data<float>(),
                            .dlogits = d.data<float>(),
                            .dlogits_stride = d.stride(),
                            .mode = d.mode});
  });
  return r;
}

Var RouterLogits(Context& ctx, const Var& x, const Var& weight) {
  const int64_t R = x.rows(), E = weight.dim(0), D = weight.dim(1);
  TESSERA_CHECK(x.dim(-1) == D, "a router of %s for %s", weight.shape().ToString().c_str(),
                x.shape().ToString().c_str());
  Tensor logits = ctx.New({R, E}, DType::kF32);
  ctx.Run(MatmulArgs{.a = FactorOf(x.value()),
                     .b = FactorOf(weight.value(), Order::kTransposed),
                     .c = ProductOf(logits),
                     .M = R,
                     .N = E,
                     .K = D});
  const Tensor kept = weight.grad() != nullptr ? x.value() : Tensor();
  return ctx.Result(logits, {x, weight}, [=, to_x = x.grad()](Context& ctx, const Tensor& d) {
    if (const GradSlot dx = ctx.GradOf(to_x); dx.wanted())
      ctx.Run(MatmulArgs{.a = FactorOf(d),
                         .b = FactorOf(weight.value()),
                         .c = ProductOf(dx.tensor, dx.mode),
                         .M = R,
                         .N = D,
                         .K = E});
    if (const GradSlot dw = ctx.GradOf(weight); dw.wanted())
      ctx.Run(MatmulArgs{.a = FactorOf(d, Order::kTransposed),
                         .b = FactorOf(kept),
                         .c = ProductOf(dw.tensor, dw.mode),
                         .M = E,
                         .N = D,
                         .K = R});
  });
}

}  // namespace tessera
