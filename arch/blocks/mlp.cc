#include <cmath>
#include <optional>

#include "arch/block.h"
#include "arch/parts/feed_forward.h"
#include "arch/registry.h"
#include "core/sizes.h"
#include "ops/pointwise.h"
#include "ops/projection.h"
#include "ops/shape.h"

// A feed-forward layer, y = W_out f(W_in x), or with a gate y = W_out (f(W_g x) * (W_u x)).

namespace tessera {
namespace {

struct MlpConfig {
  FeedForward activation;
  std::optional<int64_t> d_ff;
  bool bias = false;

  void Fields(FieldList& f) {
    activation.AddTo(f, "activation", "swiglu and geglu are gated by a second projection");
    f.Add("d_ff", d_ff, Between(1, kMaxWidth),
          "inner width; none is 8/3 d_model rounded up to 64 with a gate, else 4 d_model");
    f.Add("bias", bias, "biases in both projections");
  }
  absl::Status Check(const BlockShape&) const { return absl::OkStatus(); }

  int64_t Width(int64_t D) const {
    return d_ff.value_or(activation.gated() ? (8 * D + 3 * 64 - 1) / (3 * 64) * 64 : 4 * D);
  }
};

class Mlp final : public Block {
 public:
  // The output starts small by the depth of the model, so that the residual stream keeps its scale
  // (Radford et al. 2019, section 2.3).
  Mlp(const MlpConfig& c, const BlockShape& in, Parameters& p)
      : activation_(c.activation),
        width_(c.Width(in.D)),
        in_(p.Linear("in", {{.rows = inner()}}, in.D, Biases(c))),
        out_(p.Linear(
            "out",
            {{.rows = in.D, .init = Normal(0.02 / std::sqrt(2 * static_cast<double>(in.layers)))}},
            width_, Biases(c))) {}

  Var Forward(Context& ctx, const Var& x, State*) const override {
    const Var h = Linear(ctx, x, in_);
    const Activation f = activation_.function;
    if (!activation_.gated()) return Linear(ctx, Activate(ctx, f, h), out_);
    const int64_t widths[] = {width_, width_};
    const std::vector<Var> halves = Split(ctx, h, widths);
    return Linear(ctx, Gated(ctx, f, halves[0], halves[1]), out_);
  }

  StateSize States(DType) const override { return {}; }

 private:
  using Biased = Parameters::Biased;
  static Biased Biases(const MlpConfig& c) { return c.bias ? Biased::kYes : Biased::kNo; }
  int64_t inner() const { return activation_.halves() * width_; }

  FeedForward activation_;
  int64_t width_;
  Projection in_, out_;
};

}  // namespace

extern constexpr BlockType kMlp =
    DefineBlock<Mlp, MlpConfig>("mlp", "Feed-forward layer", "arXiv:2002.05202");

}  // namespace tessera
