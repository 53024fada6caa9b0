#include <cmath>
#include <optional>

#include "absl/strings/str_format.h"
#include "arch/block.h"
#include "core/sizes.h"
#include "core/status.h"
#include "ops/convolution.h"
#include "ops/norm.h"
#include "ops/pointwise.h"
#include "ops/projection.h"
#include "ops/scan.h"
#include "ops/shape.h"

// Gated linear attention (Yang et al. 2024, arXiv:2312.06635, section 4.4):
//   g = log sigmoid(W_2 W_1 x + b) / gate_divisor,   o = GLA(W_q x, W_k x, W_v x, g), scale K^-1/2,
//   out = W_o (RmsNorm(o) silu(W_r x)), the norm over each head.
// With `conv`, q, k and v pass a short convolution and silu first.

namespace tessera {
namespace {

struct GlaConfig {
  int64_t heads = 4;
  double expand_k = 0.5, expand_v = 1;
  int64_t gate_rank = 16;
  double gate_divisor = 16;
  std::optional<int64_t> conv;
  double norm_eps = 1e-5;

  void Fields(FieldList& f) {
    f.Add("heads", heads, Between(1, kMaxCount), "heads; divides the key and the value width");
    f.Add("expand_k", expand_k, UpTo(kMaxExpansion), "key width / d_model");
    f.Add("expand_v", expand_v, UpTo(kMaxExpansion), "value width / d_model");
    f.Add("gate_rank", gate_rank, Between(1, kMaxCount),
          "width between the gate's two projections");
    f.Add("gate_divisor", gate_divisor, Positive(), "divides the log gates: larger forgets slower");
    f.Add("conv", conv, Between(2, 8), "taps of a convolution over time on q, k and v");
    f.Add("norm_eps", norm_eps, Positive(), "added to the mean square in the norm");
  }

  absl::Status Check(const BlockShape& in) const {
    const auto divides = [&](const char* key, double expand) {
      const double width = expand * static_cast<double>(in.D);
      if (width >= 1 && std::fmod(width, static_cast<double>(heads)) == 0) return absl::OkStatus();
      return absl::InvalidArgumentError(
          absl::StrFormat("heads = %d does not divide the width %g (%s = %g times d_model = %d)",
                          heads, width, key, expand, in.D));
    };
    TESSERA_RETURN_IF_ERROR(divides("expand_k", expand_k));
    TESSERA_RETURN_IF_ERROR(divides("expand_v", expand_v));
    const double D = static_cast<double>(in.D);
    const double elements = expand_k * D * expand_v * D / static_cast<double>(heads);
    if (elements > static_cast<double>(kMaxStateElements))
      return absl::InvalidArgumentError(absl::StrFormat(
          "a state of %g elements; at most %d: raise heads, or lower expand_k or expand_v",
          elements, kMaxStateElements));
    if (expand_v * static_cast<double>(in.D) == static_cast<double>(heads))
      return absl::InvalidArgumentError(absl::StrFormat(
          "heads = %d leaves a head one value channel, of which the norm keeps the sign alone, "
          "which cannot be learnt; use fewer heads or a larger expand_v",
          heads));
    return absl::OkStatus();
  }
};

// A projection that starts uniform within Glorot's bound, times 2^-2.5.
Part Glorot(const char* name, int64_t out, int64_t in) {
  const double bound = std::exp2(-2.5) * std::sqrt(6 / static_cast<double>(in + out));
  return {.name = name, .rows = out, .init = Symmetric(bound)};
}

class Gla final : public Block {
 public:
  Gla(const GlaConfig& c, const BlockShape& in, Parameters& p)
      : heads_(c.heads),
        key_(std::llround(c.expand_k * static_cast<double>(in.D))),
        value_(std::llround(c.expand_v * static_cast<double>(in.D))),
        rank_(c.gate_rank),
        W_(c.conv.value_or(0)),
        gate_divisor_(c.gate_divisor),
        eps_(static_cast<float>(c.norm_eps)) {
    in_proj_ =
        p.Linear("in_proj",
                 {Glorot("q", key_, in.D), Glorot("k", key_, in.D), Glorot("v", value_, in.D),
                  Glorot("r", value_, in.D), Glorot("gate", rank_, in.D)},
                 in.D);
    gate_ = p.Linear("gate", {Glorot("", key_, rank_)}, rank_, Parameters::Biased::kYes);
    if (W_ > 0) {
      const double bound = 1 / std::sqrt(static_cast<double>(W_));
      conv_ = p.Add("conv", {2 * key_ + value_, W_}, Uniform(-bound, bound), Decay::kYes);
    }
    norm_ = p.Gain("norm", value_ / heads_);
    out_proj_ = p.Linear("out_proj", {Glorot("", in.D, value_)}, value_);
  }

  Var Forward(Context& ctx, const Var& x, State* state) const override {
    const LastState last = state == nullptr ? LastState::kDrop : LastState::kKeep;
    const int64_t widths[] = {2 * key_ + value_, value_, rank_};
    const auto parts = Split(ctx, Linear(ctx, x, in_proj_), widths);
    Var mixed = parts[0];
    if (W_ > 0) {
      const Scanned conv = CausalConv(ctx,
                                      {.x = mixed,
                                       .weight = conv_,
                                       .state = state == nullptr ? Var() : state->At("conv"),
                                       .activation = ConvActivation::kSilu},
                                      last);
      mixed = conv.y;
      if (state != nullptr) state->At("conv") = conv.state;
    }
    const int64_t mixed_widths[] = {key_, key_, value_};
    const auto qkv = Split(ctx, mixed, mixed_widths);
    const Var g = Activate(ctx, Activation::kLogSigmoid, Linear(ctx, parts[2], gate_),
                           static_cast<float>(1 / gate_divisor_));
    const double K = static_cast<double>(key_ / heads_);
    const Scanned scanned = GlaScan(ctx,
                                    {.q = qkv[0],
                                     .k = qkv[1],
                                     .v = qkv[2],
                                     .g = g,
                                     .state = state == nullptr ? Var() : state->At("S"),
                                     .heads = heads_,
                                     .scale = static_cast<float>(1 / std::sqrt(K))},
                                    last);
    if (state != nullptr) state->At("S") = scanned.state;
    const Var o = GatedRmsNorm(ctx, scanned.y, parts[1], norm_, NormGate::kAfter, eps_, heads_);
    return Linear(ctx, o, out_proj_);
  }

  StateSize States(DType) const override {
    const int64_t conv = W_ > 0 ? (W_ - 1) * (2 * key_ + value_) : 0;
    return {.fixed_bytes = 4 * (key_ * value_ / heads_ + conv)};
  }

 private:
  int64_t heads_, key_, value_, rank_, W_;
  double gate_divisor_;
  float eps_;
  Projection in_proj_, gate_, out_proj_;
  Var conv_, norm_;
};

}  // namespace

extern const BlockType kGla =
    DefineBlock<Gla, GlaConfig>("gla", "Gated linear attention", "arXiv:2312.06635");

}  // namespace tessera
