#include <cmath>
#include <optional>

#include "absl/strings/str_format.h"
#include "arch/block.h"
#include "arch/parts/feed_forward.h"
#include "arch/registry.h"
#include "core/sizes.h"
#include "ops/experts.h"
#include "ops/pointwise.h"
#include "ops/projection.h"

// Mixture of experts (Shazeer et al. 2017, arXiv:1701.06538; Fedus et al. 2021, arXiv:2101.03961):
//   y = sum over the k experts e that a router chooses for the token of w_e FFN_e(x),
//   FFN(x) = W_down f(W_up x), gated W_down (f(W_gate x) * W_up x),
// and shared experts, which every token passes (Dai et al. 2024, arXiv:2401.06066, eq. 9), with a
// sigmoid gate of their own if asked for (Qwen2-MoE). Fine-grained experts are more of them with a
// smaller d_ff. The router's arithmetic is fp32 whatever the compute type.
//
// Without a capacity factor no token is dropped. With one, an expert takes in training at most
// ceil(factor tokens top_k / experts) of a batch's tokens, those of earlier rows and, in a row,
// earlier times first; a token that is turned away keeps its residual path alone. So a later token
// never displaces an earlier one of its row, but a row can displace those behind it. Validation and
// generation drop nothing: there, the result of a token does not depend on the batch it came in.

namespace tessera {
namespace {

constexpr int64_t kMaxExpertsWidth = int64_t{1} << 32;

struct MoeConfig {
  int64_t experts = 8, top_k = 2;
  FeedForward expert;
  std::optional<int64_t> d_ff;
  int64_t shared = 0;
  std::optional<int64_t> shared_d_ff;
  bool shared_gate = false;
  RouterSoftmax scores = RouterSoftmax::kAll;
  std::optional<bool> renormalise;  // not given: see Renormalises
  double routed_scale = 1;
  std::optional<double> capacity_factor;
  double balance_loss = 0.01, z_loss = 1e-3;

  void Fields(FieldList& f) {
    f.Add("experts", experts, Between(1, kMaxCount),
          "experts that the router chooses from; of 1 there is nothing to choose or learn");
    f.Add("top_k", top_k, Between(1, kMaxChoices), "experts of each token");
    expert.AddTo(f, "expert", "hidden function of routed and shared experts");
    f.Add("d_ff", d_ff, Between(1, kMaxWidth),
          "hidden width of an expert; none: 8/3 d_model / top_k, up to a multiple of 16");
    f.Add("shared", shared, Between(0, kMaxCount), "experts that every token uses besides");
    const auto has_shared = [this] { return shared > 0; };
    f.Add("shared_d_ff", shared_d_ff, Between(1, kMaxWidth),
          "hidden width of a shared expert; none: d_ff")
        .OnlyWith("shared experts, `shared: 1` or more", has_shared);
    f.Add("shared_gate", shared_gate, "multiply the shared experts by sigmoid(w x)")
        .OnlyWith("shared experts, `shared: 1` or more", has_shared);
    f.Add(
        "scores", scores,
        {{"softmax_then_topk", RouterSoftmax::kAll}, {"topk_then_softmax", RouterSoftmax::kChosen}},
        "weights: softmax over all experts, or over the chosen ones");
    f.Add(
         "renormalise", renormalise, [this] { return Renormalises(); },
         "divide the weights by their sum, as topk_then_softmax does; not given: true, but false "
         "where top_k is 1, since a weight that is always 1 teaches the router nothing")
        .OnlyWith("`scores: softmax_then_topk`, since the other weights have the sum 1 already",
                  [this] { return scores == RouterSoftmax::kAll; });
    f.Add("routed_scale", routed_scale, Positive(), "factor of the routed experts' sum");
    f.Add(
        "capacity_factor", capacity_factor, Positive(),
        "training: tokens an expert takes, relative to an equal share; none: all. Rows of a batch "
        "compete for them");
    f.Add("balance_loss", balance_loss, AtLeast(0), "coefficient of the load-balance loss");
    f.Add("z_loss", z_loss, AtLeast(0), "coefficient of the router's z-loss");
  }

  absl::Status Check(const BlockShape& in) const {
    if (top_k > experts)
      return absl::InvalidArgumentError(absl::StrFormat(
          "top_k = %d exceeds experts = %d: a token uses an expert once; lower top_k "
          "or add experts",
          top_k, experts));
    if (top_k == 1 && (Renormalises() || scores == RouterSoftmax::kChosen))
      return absl::InvalidArgumentError(absl::StrFormat(
          "top_k = 1 with %s gives every chosen expert the weight 1, so the router would get no "
          "gradient from the task; use renormalise: false with scores: softmax_then_topk, or a "
          "larger top_k",
          Renormalises() ? "renormalise: true" : "scores: topk_then_softmax"));
    const int64_t hidden = CheckedProduct({experts, Width(in.D)}),
                  all_shared = CheckedProduct({shared, shared_d_ff.value_or(Width(in.D))});
    if (std::max(hidden, all_shared) > kMaxExpertsWidth)
      return absl::InvalidArgumentError(absl::StrFormat(
          "the experts together, %d x %d and %d shared, are wider than %d; lower experts or d_ff",
          experts, Width(in.D), shared, kMaxExpertsWidth));
    return absl::OkStatus();
  }

  Traits TraitsAt(const BlockShape&) const {
    if (!capacity_factor) return {};
    return {.mixes_rows = true, .why = "the tokens of a batch share the experts' capacity"};
  }

  int64_t Width(int64_t D) const {
    return d_ff.value_or((8 * D + 48 * top_k - 1) / (48 * top_k) * 16);
  }
  // With one choice the weight stays p (Fedus et al. 2021, eq. 2): divided by itself it would be 1
  // whatever the logits.
  bool Renormalises() const { return renormalise.value_or(top_k > 1); }
  RoutingOptions Routing() const {
    return {.top_k = top_k,
            .softmax = Renormalises() ? RouterSoftmax::kChosen : scores,
            .scale = routed_scale,
            .capacity_factor = capacity_factor,
            .balance_loss = balance_loss,
            .z_loss = z_loss};
  }
};

class Moe final : public Block {
 public:
  Moe(const MoeConfig& c, const BlockShape& in, Parameters& p)
      : routing_(c.Routing()), f_(c.expert.function), gating_(c.expert.gating) {
    const int64_t D = in.D, F = c.Width(D), E = c.experts;
    const int64_t halves = c.expert.halves();
    const Init last = Normal(0.02 / std::sqrt(2.0 * static_cast<double>(in.layers)));
    router_ = p.Linear("router", E, D, Normal(0.01));
    up_ = p.Experts("up", E, c.top_k, halves * F, D, Normal(0.02));
    down_ = p.Experts("down", E, c.top_k, D, F, last);
    if (c.shared == 0) return;
    const int64_t S = c.shared * c.shared_d_ff.value_or(F);
    shared_up_ = p.Linear("shared.up", {{.rows = halves * S}}, D);
    shared_down_ = p.Linear("shared.down", {{.rows = D, .init = last}}, S);
    if (c.shared_gate) shared_gate_ = p.Linear("shared.gate", 1, D, Normal(0.01));
  }

  Var Forward(Context& ctx, const Var& x, State*) const override {
    const Routing routing = Route(ctx, RouterLogits(ctx, x, router_), routing_);
    const Var hidden =
        ExpertActivation(ctx, f_, gating_, DispatchLinear(ctx, x, up_, routing), routing);
    const Var y = CombineLinear(ctx, hidden, down_, routing, x.shape());
    return shared_up_.defined() ? Add(ctx, y, Shared(ctx, x)) : y;
  }

  StateSize States(DType) const override { return {}; }

 private:
  // One feed-forward layer as wide as all shared experts together is their sum.
  Var Shared(Context& ctx, const Var& x) const {
    Var gate;
    if (shared_gate_.defined())
      gate = Activate(ctx, Activation::kSigmoid, RouterLogits(ctx, x, shared_gate_));
    const Var hidden = WeightedActivation(ctx, f_, gating_, Linear(ctx, x, shared_up_), gate);
    return Linear(ctx, hidden, shared_down_);
  }

  RoutingOptions routing_;
  Activation f_;
  Gating gating_;
  Projection router_, up_, down_;  // up [E, gate and up, D], down [E,D,F]
  Projection shared_up_, shared_down_, shared_gate_;
};

}  // namespace

extern constexpr BlockType kMoe =
    DefineBlock<Moe, MoeConfig>("moe", "Mixture of experts", "arXiv:2101.03961");

}  // namespace tessera
