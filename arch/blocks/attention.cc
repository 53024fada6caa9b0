#include "ops/attention.h"

#include <cmath>
#include <optional>

#include "absl/strings/str_format.h"
#include "arch/block.h"
#include "arch/parts/norm.h"
#include "arch/registry.h"
#include "core/sizes.h"
#include "ops/norm.h"
#include "ops/pointwise.h"
#include "ops/projection.h"
#include "ops/rope_scaling.h"

// Softmax attention, causal or not (Vaswani et al. 2017, eq. 1) with grouped key-value heads
// (Ainslie et al. 2023, arXiv:2305.13245), rotary positions (Su et al. 2021, arXiv:2104.09864), a
// sliding window, and what is put around it: norms of queries and keys, a soft cap of the scores, a
// gate on the output.

namespace tessera {
namespace {

struct ScalingConfig : RopeScaling {
  void Fields(FieldList& f) {
    f.Add("type", type,
          {{"none", RopeScalingType::kNone},
           {"linear", RopeScalingType::kLinear},
           {"ntk", RopeScalingType::kNtk},
           {"yarn", RopeScalingType::kYarn},
           {"llama3", RopeScalingType::kLlama3}},
          "how the rotation is stretched to longer sequences");
    const auto is = [this](RopeScalingType wanted) { return [=, this] { return type == wanted; }; };
    const auto yarn = is(RopeScalingType::kYarn), llama3 = is(RopeScalingType::kLlama3);
    f.Add("factor", factor, Between(1, 1e6), "new length / original length")
        .OnlyWith("a `type` other than none", [this] { return type != RopeScalingType::kNone; });
    f.Add("original_length", original_length_tok, Between(0, kMaxSeq), "tokens trained for")
        .OnlyWith("`type: yarn` or llama3", [=] { return yarn() || llama3(); });
    f.Add("beta_fast", beta_fast, Positive(), "pairs that turn more often are kept")
        .OnlyWith("`type: yarn`", yarn);
    f.Add("beta_slow", beta_slow, Positive(), "pairs that turn less often are divided")
        .OnlyWith("`type: yarn`", yarn);
    f.Add("low_freq_factor", low_freq_factor, Positive(), "lower bound, in turns")
        .OnlyWith("`type: llama3`", llama3);
    f.Add("high_freq_factor", high_freq_factor, Positive(), "upper bound, in turns")
        .OnlyWith("`type: llama3`", llama3);
  }
  absl::Status Check() const {
    const auto ascend = [](const char* low_key, double low, const char* high_key, double high) {
      if (low < high) return absl::OkStatus();
      return absl::InvalidArgumentError(absl::StrFormat(
          "rope.scaling: %s = %g is not below %s = %g", low_key, low, high_key, high));
    };
    if (type == RopeScalingType::kYarn)
      return ascend("beta_slow", beta_slow, "beta_fast", beta_fast);
    if (type == RopeScalingType::kLlama3)
      return ascend("low_freq_factor", low_freq_factor, "high_freq_factor", high_freq_factor);
    return absl::OkStatus();
  }
};

struct RopeConfig {
  double base = 10000;
  RopePairing pairing = RopePairing::kHalves;
  ScalingConfig scaling;
  void Fields(FieldList& f) {
    f.Add("base", base, Between(2, 1e12), "theta_i = base^(-2i/head_dim)");
    f.Add("pairing", pairing,
          {{"halves", RopePairing::kHalves}, {"interleaved", RopePairing::kInterleaved}},
          "which channels turn together");
    f.Add("scaling", scaling, "stretching to longer sequences");
  }
};

// Which projections have a bias. Rotation, norms and a soft cap come between a key's bias and its
// score, so that it moves the softmax as the queries' does. kQvo leaves it out, as Whisper does
// (Radford et al. 2022, arXiv:2212.04356), and the gate's with it.
enum class Biases : uint8_t { kNone, kAll, kQvo };

struct AttentionConfig {
  int64_t heads = 4;
  std::optional<int64_t> kv_heads, head_dim, window;
  std::optional<RopeConfig> rope = RopeConfig{};
  Biases bias = Biases::kNone;
  bool causal = true, qk_norm = false, gate = false;
  std::optional<double> soft_cap;
  std::string kv_from;

  void Fields(FieldList& f) {
    f.Add("heads", heads, Between(1, kMaxCount), "query heads");
    f.Add("kv_heads", kv_heads, Between(1, kMaxCount), "key and value heads; none is `heads`");
    f.Add("head_dim", head_dim, Between(1, kMaxCount), "width of a head; none is d_model / heads");
    f.Add("causal", causal,
          "whether a token sees itself and earlier ones alone; false, as in an encoder, leaves no "
          "state to generate from");
    f.Add("window", window, Between(1, kMaxSeq),
          "keys that a query sees, itself included, and with causal: false as many to its other "
          "side; none is all. With 1 there is nothing to choose: queries and keys never learn");
    f.Add("rope", rope, "rotary positions, or none");
    f.Add("qk_norm", qk_norm, "RMS norm of every query and key head");
    f.Add("soft_cap", soft_cap, Positive(), "scores become c tanh(score / c)");
    f.Add("bias", bias, {{"false", Biases::kNone}, {"true", Biases::kAll}, {"qvo", Biases::kQvo}},
          "biases in all projections, or in those of queries, values and output alone, which is "
          "what a checkpoint without k_bias has");
    f.Add("gate", gate, "multiply the output by sigmoid of a projection of the input");
    f.Add("kv_from", kv_from,
          "read the keys and values of an earlier layer, by its name, or of the `first` layer of "
          "attention (all but it have none of their own) or the `previous` one that has them");
  }
  absl::Status Check(const BlockShape& in) const {
    const auto bad = [](const std::string& what) { return absl::InvalidArgumentError(what); };
    if (!head_dim && in.D % heads != 0)
      return bad("heads = " + std::to_string(heads) + " does not divide d_model = " +
                 std::to_string(in.D) + "; change heads or give head_dim");
    if (heads % kv() != 0)
      return bad("kv_heads = " + std::to_string(kv()) +
                 " does not divide heads = " + std::to_string(heads));
    if (heads * Width(in.D) > kMaxWidth)
      return bad(std::to_string(heads) + " heads of " + std::to_string(Width(in.D)) +
                 " channels are wider than " + std::to_string(kMaxWidth) +
                 "; lower heads or head_dim");
    if (!causal && window == 1)
      return bad(
          "with window = 1 a token sees itself alone, and causal: false changes nothing; use a "
          "wider window or causal: true");
    if (rope && Width(in.D) % 2 != 0)
      return bad("a head of width " + std::to_string(Width(in.D)) +
                 " cannot be rotated in pairs; use an even head_dim or rope: none");
    if (rope && Width(in.D) > 2 * RopeRotation::kMaxPairs)
      return bad("a head of width " + std::to_string(Width(in.D)) +
                 " is too wide to rotate; at most " + std::to_string(2 * RopeRotation::kMaxPairs));
    if (qk_norm && Width(in.D) == 1)
      return bad(
          "qk_norm leaves of a head of width 1 its sign alone, which cannot be learnt; use a "
          "wider head_dim or qk_norm: false");
    const bool needs_length = rope && (rope->scaling.type == RopeScalingType::kYarn ||
                                       rope->scaling.type == RopeScalingType::kLlama3);
    if (needs_length && !(rope->scaling.original_length_tok > 0))
      return bad("rope.scaling needs original_length, the tokens that the model was trained for");
    if (rope) return rope->scaling.Check();
    return absl::OkStatus();
  }
  Traits TraitsAt(const BlockShape&) const {
    if (causal) return {};
    return {.causal = Causal::kNever,
            .decodes = false,
            .why = "with causal: false its tokens see those behind them"};
  }
  // Keys and values, each kv_heads x head_dim a token. What is not causal has no state, and so
  // neither leaves keys of one nor reads them.
  Port Kv(const BlockShape& in) const {
    const std::vector<int64_t> heads = {kv(), Width(in.D)};
    return {.name = "kv", .values = {heads, heads}, .reach = causal ? window.value_or(-1) : 0};
  }
  std::vector<PortRead> Reads(const BlockShape& in) const {
    if (kv_from.empty()) return {};
    return {{.port = Kv(in),
             .from = kv_from,
             .key = "kv_from",
             .fix = "make kv_heads, head_dim and causal equal, and this window no wider"}};
  }
  std::vector<Port> Provides(const BlockShape& in) const {
    if (in.Reads("kv")) return {};
    return {Kv(in)};
  }
  int64_t kv() const { return kv_heads.value_or(heads); }
  int64_t Width(int64_t D) const { return head_dim.value_or(D / heads); }
};

class AttentionBlock final : public Block {
 public:
  AttentionBlock(const AttentionConfig& c, const BlockShape& in, Parameters& p)
      : config_(c),
        reads_kv_(in.Reads("kv")),
        width_(c.Width(in.D)),
        q_(p.Linear("q", {{.rows = c.heads * width_}}, in.D)),
        out_(p.Linear(
            "out",
            {{.rows = in.D, .init = Normal(0.02 / std::sqrt(2 * static_cast<double>(in.layers)))}},
            c.heads * width_)) {
    if (!reads_kv_) {
      k_ = p.Linear("k", {{.rows = c.kv() * width_}}, in.D);
      v_ = p.Linear("v", {{.rows = c.kv() * width_}}, in.D);
      if (c.bias == Biases::kAll) k_.bias = p.Bias("k_bias", c.kv() * width_);
      if (c.bias != Biases::kNone) v_.bias = p.Bias("v_bias", c.kv() * width_);
      if (c.qk_norm) k_norm_ = p.Gain("k_norm", width_);
    }
    if (c.bias != Biases::kNone) {
      q_.bias = p.Bias("q_bias", c.heads * width_);
      out_.bias = p.Bias("out_bias", in.D);
    }
    if (c.gate) gate_ = p.Linear("gate", {{.rows = c.heads * width_}}, in.D);
    if (c.gate && c.bias == Biases::kAll) gate_.bias = p.Bias("gate_bias", c.heads * width_);
    if (c.qk_norm) q_norm_ = p.Gain("q_norm", width_);
    if (c.rope)
      rotation_ = MakeRotation(ScaledRopeFrequencies(c.rope->scaling, c.rope->base, width_),
                               c.rope->pairing);
  }

  Var Forward(Context& ctx, const Var& x, State* state) const override {
    const AttentionConfig& c = config_;
    TESSERA_CHECK(c.causal || state == nullptr, "attention that is not causal has no state");
    Var q = Linear(ctx, x, q_);
    if (c.qk_norm) q = RmsNorm(ctx, q, q_norm_, kHeadNormEps, c.heads);
    if (c.rope) q = Rope(ctx, q, c.heads, rotation_);
    const KeysValues kv = reads_kv_ ? ctx.Read("kv") : Own(ctx, x, state);
    const AttentionOptions options{.heads = c.heads,
                                   .kv_heads = c.kv(),
                                   .window = c.window.value_or(0),
                                   .after = c.causal ? 0 : c.window.value_or(0) - 1,
                                   .scale = 1 / std::sqrt(static_cast<float>(width_)),
                                   .soft_cap = static_cast<float>(c.soft_cap.value_or(0))};
    Var o = Attention(ctx, q, kv[kK], kv[kV], Past(kv, state), options);
    if (!reads_kv_) {
      if (state != nullptr) Remember(ctx, kv[kK], kv[kV], state);
      ctx.Leave("kv", kv);
    }
    if (c.gate) o = Gated(ctx, Activation::kSigmoid, Linear(ctx, x, gate_), o);
    return Linear(ctx, o, out_);
  }

  StateSize States(DType compute) const override {
    if (reads_kv_ || !config_.causal) return {};
    return {.caches = {{.bytes_per_token = 2 * config_.kv() * width_ * SizeOf(compute),
                        .max_tokens = config_.window ? *config_.window - 1 : -1}}};
  }

 private:
  // Of this chunk, then of the state before it, undefined without one: what an edge carries.
  using KeysValues = std::vector<Var>;
  enum { kK, kV, kPastK, kPastV };

  KeysValues Own(Context& ctx, const Var& x, State* state) const {
    Var k = Linear(ctx, x, k_);
    const Var v = Linear(ctx, x, v_);
    if (config_.qk_norm) k = RmsNorm(ctx, k, k_norm_, kHeadNormEps, config_.kv());
    if (config_.rope) k = Rope(ctx, k, config_.kv(), rotation_);
    if (state == nullptr) return {k, v, Var(), Var()};
    return {k, v, state->At("k"), state->At("v")};
  }

  // Rows of the ring that holds the cache in generation: a window of W keys needs the W - 1 before
  // a token.
  int64_t Capacity(const State& s) const {
    return config_.window ? std::min(*config_.window - 1, s.capacity) : s.capacity;
  }

  KvPast Past(const KeysValues& kv, const State* state) const {
    if (!kv[kPastK].defined()) return {};
    KvPast past{.k = kv[kPastK], .v = kv[kPastV]};
    past.rows = past.k.dim(1);
    if (state->capacity > 0) {
      past.first = state->tokens > past.rows ? state->tokens % past.rows : 0;
      past.rows = std::min(past.rows, state->tokens);
    }
    return past;
  }

  void Remember(Context& ctx, const Var& k, const Var& v, State* state) const {
    const std::pair<const char*, const Var*> both[] = {{"k", &k}, {"v", &v}};
    if (config_.window == 1) return;  // a token sees itself alone
    for (const auto& [name, rows] : both) {
      Var& cache = state->At(name);
      if (state->capacity == 0) {
        const int64_t keep = config_.window ? *config_.window - 1 : INT64_MAX;
        cache = LastRows(ctx, cache, *rows, keep);
        continue;
      }
      const int64_t capacity = Capacity(*state), first = state->tokens % capacity;
      if (!cache.defined())
        cache = Var(ctx.New({rows->dim(0), capacity, rows->dim(2)}, rows->dtype()));
      const auto write = [ring = cache.value(), first, rows = rows->value()](Context& ctx) {
        WriteRows(ctx, ring, first, rows);
      };
      // Layers that read these keys have yet to see the rows that the new ones overwrite.
      if (ctx.Wanted("kv")) {
        ctx.at_end.push_back(write);
      } else {
        write(ctx);
      }
    }
  }

  AttentionConfig config_;
  bool reads_kv_;
  int64_t width_;
  Projection q_, k_, v_, out_, gate_;
  Var q_norm_, k_norm_;
  RopeRotation rotation_;
};

}  // namespace

extern constexpr BlockType kAttention = DefineBlock<AttentionBlock, AttentionConfig>(
    "attention", "Softmax attention", "arXiv:1706.03762");

}  // namespace tessera
