#include <algorithm>
#include <cmath>
#include <vector>

#include "arch/block.h"
#include "arch/stack.h"
#include "core/sizes.h"
#include "ops/algebra.h"
#include "ops/host.h"
#include "ops/pointwise.h"
#include "ops/projection.h"
#include "ops/rows.h"
#include "ops/sequence.h"
#include "ops/shape.h"
#include "ops/time.h"

// Layers that only some tokens pass (Mixture-of-Depths: Raposo et al. 2024, arXiv:2404.02258,
// section 3): with r_t = w x_t, the k tokens of a sequence that score highest get
//   y_t = r_t (layers(x)_t - x_t),
// where the layers see these tokens alone, and the others get 0; the layer around the block adds x.
// The choice looks at the whole sequence, so what decides outside of training is a predictor of it
// (section 3.5), which learns on the side: its loss reaches nothing but itself.

namespace tessera {
namespace {

struct MixtureOfDepthsConfig {
  double capacity = 0.125, predictor_loss = 0.01;
  StackConfig layers;

  void Fields(FieldList& f) {
    f.Add("capacity", capacity, UpTo(1), "part of a sequence's tokens that pass, in training");
    f.Add("predictor_loss", predictor_loss, Positive(),
          "weight of the cross-entropy of the predictor, which decides outside of training");
    f.Add("layers", layers, "what they pass, as in `model.layers`");
  }
  absl::Status Check(const BlockShape&) const { return absl::OkStatus(); }
  int64_t Tokens(int64_t T) const {
    return std::max<int64_t>(1, std::llround(capacity * static_cast<double>(T)));
  }
  std::vector<HeldLayers> Layers() {
    return {{.layers = &layers, .key = "layers", .reshape = [](BlockShape*) {}}};
  }
  Traits TraitsAt(const BlockShape&) const {
    return {.causal = Causal::kInInference,
            .packs = false,
            .reads_values = true,
            .why = "its tokens are chosen over the whole sequence, or by a predictor"};
  }
};

class MixtureOfDepths final : public Block {
 public:
  MixtureOfDepths(const MixtureOfDepthsConfig& c, const BlockShape& in, Parameters& p)
      : config_(c),
        router_(p.Linear("router", 1, in.D)),
        hidden_(p.Linear("predictor_in", GroupsOf(in.D, 4), in.D)),
        hidden_bias_(p.Bias("predictor_in_bias", GroupsOf(in.D, 4))),
        predictor_(p.Linear("predictor", 1, GroupsOf(in.D, 4))),
        stack_(c.layers, in, p) {}

  Var Forward(Context& ctx, const Var& x, State* state) const override {
    const Shape one = {x.dim(0), x.dim(1), 1};
    const Var score = RouterLogits(ctx, x, router_).WithShape(one);
    // What decides is fp32, whatever the layers are.
    const Var linear = BroadcastAdd(
        ctx,
        RouterLogits(ctx, x.Detach(), hidden_).WithShape({x.dim(0), x.dim(1), hidden_bias_.dim(0)}),
        hidden_bias_);
    const Var hidden = Activate(ctx, Activation::kSilu, linear);
    const Var guess = RouterLogits(ctx, hidden, predictor_).WithShape(one);
    return ctx.training ? Chosen(ctx, x, score, guess) : Guessed(ctx, x, score, guess, state);
  }

  StateSize States(DType) const override { return {}; }
  std::vector<HeldStack> Stacks() const override { return {{.stack = &stack_}}; }

 private:
  // The layers on the tokens at `index` [B,k] of x, which stand at `position`, times their scores.
  Var Pass(Context& ctx, const Var& x, const Var& score, const Tensor& index,
           const Tensor& position, State* state) const {
    const Var in = Gather(ctx, x, index);
    Var out;
    {
      const OtherSequence other(ctx, position, Tensor());
      out = stack_.Forward(ctx, in, state);
    }
    return BroadcastMultiply(ctx, Add(ctx, out, in, -1), score);
  }

  Var Chosen(Context& ctx, const Var& x, const Var& score, const Var& guess) const {
    const int64_t B = x.dim(0), T = x.dim(1), k = config_.Tokens(T);
    const auto [index, value] =
        Choose(ctx, score, k, {.axis = ChooseAxis::kTime, .order = ChooseOrder::kByPlace});
    const Tensor places = index.Reshape({B, k});
    const Var y = Pass(ctx, x, Reshape(ctx, value, {B, k, 1}), places, places, nullptr);
    const Var ones = Activate(ctx, Activation::kSigmoid, Var(ctx.Zeros({B, k, 1}, DType::kF32)), 2);
    const Var was_chosen = Scatter(ctx, ones, places, T);
    // -log of the probability of what was chosen: softplus(g) - g where it was.
    const Var loss = Add(ctx, Activate(ctx, Activation::kSoftplus, guess),
                         Gated(ctx, Activation::kIdentity, guess, was_chosen), -1);
    ctx.AddLoss("predictor_loss", config_.predictor_loss,
                Reduce(ctx, Reduction::kMean, Reshape(ctx, loss, {1, 1, B * T})));
    return Scatter(ctx, y, places, T);
  }

  // Each sequence passes as many tokens as its own guesses say, with a state of its own.
  Var Guessed(Context& ctx, const Var& x, const Var& score, const Var& guess, State* state) const {
    const int64_t B = x.dim(0), T = x.dim(1), seen = state == nullptr ? 0 : state->tokens;
    const std::vector<float> passes = HostValues(ctx, guess.value(), 1);
    // One sequence of all tokens, from which each takes its own.
    const Var all = x.WithShape({1, B * T, x.dim(2)}), scores = score.WithShape({1, B * T, 1});
    std::vector<Var> parts;
    std::vector<int32_t> places;
    for (int64_t b = 0; b < B; ++b) {
      std::vector<int32_t> own, positions;
      for (int64_t t = 0; t < T; ++t)
        if (passes[static_cast<size_t>(b * T + t)] > 0) {
          own.push_back(static_cast<int32_t>(b * T + t));
          positions.push_back(static_cast<int32_t>(seen + t));
        }
      if (own.empty()) continue;
      places.insert(places.end(), own.begin(), own.end());
      const int64_t n = static_cast<int64_t>(own.size());
      const Tensor index = FromHost(ctx, {1, n}, own);
      State* inside = nullptr;
      if (state != nullptr) inside = &state->Part(static_cast<size_t>(b));
      parts.push_back(Pass(ctx, all, Gather(ctx, scores, index), index,
                           FromHost(ctx, {1, n}, positions), inside));
    }
    if (parts.empty()) return Var(ctx.Zeros(x.shape(), x.dtype()));
    const Var y = parts.size() == 1 ? parts[0] : ConcatTime(ctx, parts);
    const Tensor index = FromHost(ctx, {1, y.dim(1)}, places);
    return Scatter(ctx, y, index, B * T).WithShape(x.shape());
  }

  MixtureOfDepthsConfig config_;
  Projection router_, hidden_;
  Var hidden_bias_;
  Projection predictor_;
  Stack stack_;
};

}  // namespace

extern constexpr BlockType kMixtureOfDepths = DefineBlock<MixtureOfDepths, MixtureOfDepthsConfig>(
    "mixture_of_depths", "Layers that some tokens pass", "arXiv:2404.02258");

}  // namespace tessera
