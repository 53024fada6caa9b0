#include <cmath>
#include <optional>

#include "arch/block.h"
#include "arch/registry.h"
#include "core/sizes.h"
#include "ops/pointwise.h"
#include "ops/projection.h"
#include "ops/shape.h"

// A feed-forward layer, y = W_out f(W_in x), or with a gate (Shazeer 2020, arXiv:2002.05202, eq. 6)
//   y = W_out (f(W_g x) * (W_u x)),
// where W_g and W_u are the halves of one projection.

namespace tessera {
namespace {

enum class Kind { kSwiglu, kGeglu, kGelu, kRelu2, kSilu };

struct MlpConfig {
  Kind activation = Kind::kSwiglu;
  std::optional<int64_t> d_ff;
  bool bias = false;

  void Fields(FieldList& f) {
    f.Add("activation", activation,
          {{"swiglu", Kind::kSwiglu},
           {"geglu", Kind::kGeglu},
           {"gelu", Kind::kGelu},
           {"relu2", Kind::kRelu2},
           {"silu", Kind::kSilu}},
          "swiglu and geglu are gated by a second projection");
    f.Add("d_ff", d_ff, Between(1, kMaxWidth),
          "inner width; none is 8/3 d_model rounded up to 64 with a gate, else 4 d_model");
    f.Add("bias", bias, "biases in both projections");
  }
  absl::Status Check(const BlockShape&) const { return absl::OkStatus(); }

  bool gated() const { return activation == Kind::kSwiglu || activation == Kind::kGeglu; }
  int64_t Width(int64_t D) const {
    return d_ff.value_or(gated() ? (8 * D + 3 * 64 - 1) / (3 * 64) * 64 : 4 * D);
  }
};

Activation FunctionOf(Kind kind) {
  switch (kind) {
    case Kind::kSwiglu:
    case Kind::kSilu:
      return Activation::kSilu;
    case Kind::kGeglu:
    case Kind::kGelu:
      return Activation::kGelu;
    case Kind::kRelu2:
      break;
  }
  return Activation::kRelu2;
}

class Mlp final : public Block {
 public:
  // The output starts small by the depth of the model, so that the residual stream keeps its scale
  // (Radford et al. 2019, section 2.3).
  Mlp(const MlpConfig& c, const BlockShape& in, Parameters& p)
      : f_(FunctionOf(c.activation)),
        gated_(c.gated()),
        width_(c.Width(in.D)),
        in_(p.Linear("in", {{.rows = inner()}}, in.D, Biases(c))),
        out_(p.Linear(
            "out",
            {{.rows = in.D, .init = Normal(0.02 / std::sqrt(2 * static_cast<double>(in.layers)))}},
            width_, Biases(c))) {}

  Var Forward(Context& ctx, const Var& x, State*) const override {
    const Var h = Linear(ctx, x, in_);
    if (!gated_) return Linear(ctx, Activate(ctx, f_, h), out_);
    const int64_t widths[] = {width_, width_};
    const std::vector<Var> halves = Split(ctx, h, widths);
    return Linear(ctx, Gated(ctx, f_, halves[0], halves[1]), out_);
  }

  StateSize States(DType) const override { return {}; }

 private:
  using Biased = Parameters::Biased;
  static Biased Biases(const MlpConfig& c) { return c.bias ? Biased::kYes : Biased::kNo; }
  int64_t inner() const { return gated_ ? 2 * width_ : width_; }

  Activation f_;
  bool gated_;
  int64_t width_;
  Projection in_, out_;
};

}  // namespace

extern constexpr BlockType kMlp =
    DefineBlock<Mlp, MlpConfig>("mlp", "Feed-forward layer", "arXiv:2002.05202");

}  // namespace tessera
