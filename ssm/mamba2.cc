#include <cmath>

#include "absl/strings/str_format.h"
#include "arch/block.h"
#include "core/sizes.h"
#include "ops/convolution.h"
#include "ops/norm.h"
#include "ops/projection.h"
#include "ops/scan.h"
#include "ops/shape.h"

// Mamba-2 (Dao & Gu 2024, arXiv:2405.21060, section 7):
//   [z | x | B | C | dt] = W_in u,   [x | B | C] = silu(conv([x | B | C])),
//   y = SSD(x, dt, A, B, C) + D x,   out = W_out RmsNorm(y silu(z)),
// with one decay rate A and step size dt a head, and B and C shared by the heads of a group.

namespace tessera {
namespace {

struct Mamba2Config {
  int64_t d_state = 128, head_dim = 64;
  double expand = 2;
  int64_t groups = 1, conv = 4;
  bool conv_bias = true, bias = false;
  double dt_min = 0.001, dt_max = 0.1, dt_floor = 1e-4;
  double A_min = 1, A_max = 16;
  double norm_eps = 1e-5;

  void Fields(FieldList& f) {
    f.Add("d_state", d_state, Between(1, kMaxCount), "rows of a head's state");
    f.Add("head_dim", head_dim, Between(1, kMaxCount),
          "channels of a head; divides the inner width");
    f.Add("expand", expand, UpTo(kMaxExpansion), "inner width / d_model");
    f.Add("groups", groups, Between(1, kMaxCount),
          "groups of heads that share B and C; divides the heads");
    f.Add("conv", conv, Between(2, 8), "taps of the convolution over time");
    f.Add("conv_bias", conv_bias, "whether the convolution has a bias");
    f.Add("bias", bias, "whether the projections have biases");
    f.Add("dt_min", dt_min, Positive(), "smallest step size at the start");
    f.Add("dt_max", dt_max, Positive(), "largest step size at the start");
    f.Add("dt_floor", dt_floor, Positive(), "no step size starts below this");
    f.Add("A_min", A_min, Positive(), "slowest decay rate at the start");
    f.Add("A_max", A_max, Positive(), "fastest decay rate at the start");
    f.Add("norm_eps", norm_eps, Positive(), "added to the mean square in the norm");
  }

  int64_t Inner(int64_t D) const { return std::llround(expand * static_cast<double>(D)); }

  absl::Status Check(const BlockShape& in) const {
    const int64_t inner = Inner(in.D);
    if (static_cast<double>(inner) != expand * static_cast<double>(in.D) || inner % head_dim != 0)
      return absl::InvalidArgumentError(absl::StrFormat(
          "head_dim = %d does not divide the inner width %g (expand = %g times d_model = %d)",
          head_dim, expand * static_cast<double>(in.D), expand, in.D));
    if (inner / head_dim % groups != 0)
      return absl::InvalidArgumentError(
          absl::StrFormat("groups = %d does not divide the %d heads (inner width %d / head_dim %d)",
                          groups, inner / head_dim, inner, head_dim));
    if (inner == groups)
      return absl::InvalidArgumentError(absl::StrFormat(
          "groups = %d leaves a group one channel, of which the norm keeps the sign alone, which "
          "cannot be learnt; use fewer groups or a larger expand",
          groups));
    if (inner * d_state > kMaxStateElements)
      return absl::InvalidArgumentError(
          absl::StrFormat("a state of %d channels x d_state = %d has more than %d elements; lower "
                          "d_state or expand",
                          inner, d_state, kMaxStateElements));
    if (dt_min > dt_max)
      return absl::InvalidArgumentError(
          absl::StrFormat("dt_min = %g is above dt_max = %g", dt_min, dt_max));
    if (A_min > A_max)
      return absl::InvalidArgumentError(
          absl::StrFormat("A_min = %g is above A_max = %g", A_min, A_max));
    return absl::OkStatus();
  }
};

// The raw value whose softplus is log-uniform in [dt_min, dt_max], at least dt_floor.
Init InverseSoftplusOfSteps(const Mamba2Config& c) {
  return [low = std::log(c.dt_min), high = std::log(c.dt_max), floor = c.dt_floor](const Rng& rng,
                                                                                   int64_t i) {
    const double u = rng.Uniform(static_cast<uint64_t>(i));
    const double dt = std::max(std::exp(low + u * (high - low)), floor);
    return dt + std::log(-std::expm1(-dt));
  };
}

Init LogOfUniform(double low, double high) {
  return [=](const Rng& rng, int64_t i) {
    return std::log(low + (high - low) * rng.Uniform(static_cast<uint64_t>(i)));
  };
}

class Mamba2 final : public Block {
 public:
  Mamba2(const Mamba2Config& c, const BlockShape& in, Parameters& p)
      : inner_(c.Inner(in.D)),
        heads_(inner_ / c.head_dim),
        groups_(c.groups),
        N_(c.d_state),
        P_(c.head_dim),
        W_(c.conv),
        eps_(static_cast<float>(c.norm_eps)) {
    const double in_bound = 1 / std::sqrt(static_cast<double>(in.D));
    const double tap_bound = 1 / std::sqrt(static_cast<double>(W_));
    const double out_bound = 1 / std::sqrt(static_cast<double>(inner_ * in.layers));
    const int64_t projected = inner_ + mixed() + heads_;
    const auto biased = c.bias ? Parameters::Biased::kYes : Parameters::Biased::kNo;
    in_proj_ = p.Linear("in_proj", {{.rows = projected, .init = Uniform(-in_bound, in_bound)}},
                        in.D, biased);
    conv_ = p.Add("conv", {mixed(), W_}, Uniform(-tap_bound, tap_bound), Decay::kYes);
    if (c.conv_bias)
      conv_bias_ = p.Add("conv_bias", {mixed()}, Uniform(-tap_bound, tap_bound), Decay::kNo);
    dt_bias_ = p.Add("dt_bias", {heads_}, InverseSoftplusOfSteps(c), Decay::kNo);
    A_log_ = p.Add("A_log", {heads_}, LogOfUniform(c.A_min, c.A_max), Decay::kNo);
    D_ = p.Gain("D", heads_);
    norm_ = p.Gain("norm", inner_);
    out_proj_ = p.Linear("out_proj", {{.rows = in.D, .init = Uniform(-out_bound, out_bound)}},
                         inner_, biased);
  }

  Var Forward(Context& ctx, const Var& u, State* state) const override {
    const LastState last = state == nullptr ? LastState::kDrop : LastState::kKeep;
    const int64_t widths[] = {inner_, mixed(), heads_};
    const auto parts = Split(ctx, Linear(ctx, u, in_proj_), widths);
    const Var& z = parts[0];
    const Scanned mixed = CausalConv(ctx,
                                     {.x = parts[1],
                                      .weight = conv_,
                                      .bias = conv_bias_,
                                      .state = state == nullptr ? Var() : state->At("conv"),
                                      .activation = ConvActivation::kSilu},
                                     last);
    const int64_t mixed_widths[] = {inner_, groups_ * N_, groups_ * N_};
    const auto xbc = Split(ctx, mixed.y, mixed_widths);
    const Scanned scanned = SsdScan(ctx,
                                    {.x = xbc[0],
                                     .dt = parts[2],
                                     .b = xbc[1],
                                     .c = xbc[2],
                                     .A_log = A_log_,
                                     .dt_bias = dt_bias_,
                                     .D = D_,
                                     .state = state == nullptr ? Var() : state->At("S"),
                                     .N = N_},
                                    last);
    if (state != nullptr) {
      state->At("conv") = mixed.state;
      state->At("S") = scanned.state;
    }
    const Var y = GatedRmsNorm(ctx, scanned.y, z, norm_, NormGate::kBefore, eps_, groups_);
    return Linear(ctx, y, out_proj_);
  }

  StateSize States(DType) const override {
    return {.fixed_bytes = 4 * (heads_ * N_ * P_ + (W_ - 1) * mixed())};
  }

 private:
  int64_t mixed() const { return inner_ + 2 * groups_ * N_; }  // channels of the convolution

  int64_t inner_, heads_, groups_, N_, P_, W_;
  float eps_;
  Projection in_proj_, out_proj_;
  Var conv_, conv_bias_, dt_bias_, A_log_, D_, norm_;
};

}  // namespace

extern const BlockType kMamba2 =
    DefineBlock<Mamba2, Mamba2Config>("mamba2", "Mamba-2", "arXiv:2405.21060");

}  // namespace tessera
