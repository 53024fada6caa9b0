#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "arch/block.h"
#include "core/sizes.h"
#include "ops/algebra.h"
#include "ops/product.h"
#include "ops/projection.h"
#include "ops/shape.h"

// Softmax attention to a few mixtures of the keys and values (Linformer: Wang et al. 2020,
// arXiv:2006.04768, eq. 7): o = softmax(Q (E K)^T / sqrt(d)) F V, with E and F [k, T] learnt, so
// that it costs O(T k). They are learnt for the places of one longest sequence, each of which sees
// all: an encoder's layer. E and F serve all heads of the layer (the paper's headwise sharing), and
// with `share` they are one.

namespace tessera {
namespace {

struct LinformerConfig {
  int64_t heads = 4, rank = 64;
  std::optional<int64_t> head_dim, length;
  bool share = false;

  void Fields(FieldList& f) {
    f.Add("heads", heads, Between(1, kMaxCount), "query, key and value heads");
    f.Add("head_dim", head_dim, Between(1, kMaxCount), "width of a head; none is d_model / heads");
    f.Add("rank", rank, Between(1, kMaxWidth), "mixtures of the keys and values");
    f.Add("length", length, Between(1, kMaxWidth), "of the longest sequence; none is train.seq");
    f.Add("share", share, "one mixture for keys and values");
  }
  absl::Status Check(const BlockShape& in) const {
    if (!head_dim && in.D % heads != 0)
      return absl::InvalidArgumentError("heads = " + std::to_string(heads) +
                                        " does not divide d_model = " + std::to_string(in.D) +
                                        "; change heads or give head_dim");
    if (Length(in) == 0)
      return absl::InvalidArgumentError("the longest sequence is not known here; give length");
    if (Length(in) > kMaxWidth)
      return absl::InvalidArgumentError("sequences of " + std::to_string(Length(in)) +
                                        " tokens; at most " + std::to_string(kMaxWidth) +
                                        ", which are learnt one by one");
    return absl::OkStatus();
  }
  Traits TraitsAt(const BlockShape& in) const {
    return {.causal = Causal::kNever,
            .packs = false,
            .decodes = false,
            .max_tokens = Length(in),
            .why = "its mixtures are learnt for the places of one sequence"};
  }
  int64_t Length(const BlockShape& in) const { return length.value_or(in.max_tokens); }
  int64_t Width(int64_t D) const { return heads * head_dim.value_or(D / heads); }
};

class Linformer final : public Block {
 public:
  Linformer(const LinformerConfig& c, const BlockShape& in, Parameters& p)
      : config_(c),
        length_(c.Length(in)),
        width_(c.Width(in.D)),
        qkv_(p.Linear("qkv",
                      {{.name = "q", .rows = width_},
                       {.name = "k", .rows = width_},
                       {.name = "v", .rows = width_}},
                      in.D)),
        out_(p.Linear(
            "out",
            {{.rows = in.D, .init = Normal(0.02 / std::sqrt(2 * static_cast<double>(in.layers)))}},
            width_)),
        e_(Mixture(p, "e")) {
    if (!c.share) f_ = Mixture(p, "f");
  }

  Var Forward(Context& ctx, const Var& x, State*) const override {
    const std::vector<Var> qkv = Split(ctx, Linear(ctx, x, qkv_), qkv_.widths);
    const Var k = Mix(ctx, e_, qkv[1]), v = Mix(ctx, config_.share ? e_ : f_, qkv[2]);
    const Var s = BatchedMatmul(ctx, qkv[0], k, {.heads = config_.heads, .b = Order::kTransposed});
    const double head = static_cast<double>(width_ / config_.heads);
    const Var p = Softmax(
        ctx, s, {.groups = config_.heads, .scale = static_cast<float>(1 / std::sqrt(head))});
    return Linear(ctx, BatchedMatmul(ctx, p, v, {.heads = config_.heads}), out_);
  }

  StateSize States(DType) const override { return {}; }

 private:
  Var Mixture(Parameters& p, const char* name) const {
    return p.Add(name, {config_.rank, length_}, Normal(1 / std::sqrt(config_.rank)), Decay::kYes,
                 Role::kMatrix);
  }
  // Of the places that there are: [B,T,C] -> [B,rank,C].
  Var Mix(Context& ctx, const Var& mixture, const Var& x) const {
    const int64_t B = x.dim(0), T = x.dim(1), rank = config_.rank;
    TESSERA_CHECK(T <= length_, "%ld tokens of at most %ld", T, length_);
    Var own = mixture;
    if (T < length_) own = Split(ctx, mixture, std::vector<int64_t>{T, length_ - T})[0];
    const Var flat = Reshape(ctx, own, {rank * T});
    const Var each = BroadcastAdd(ctx, Var(ctx.Zeros({B, 1, rank * T}, x.dtype())), flat);
    return BatchedMatmul(ctx, Reshape(ctx, each, {B, rank, T}), x, {});
  }

  LinformerConfig config_;
  int64_t length_, width_;
  Projection qkv_, out_;
  Var e_, f_;
};

}  // namespace

extern constexpr BlockType kLinformer = DefineBlock<Linformer, LinformerConfig>(
    "linformer", "Attention to mixtures of the keys", "arXiv:2006.04768");

}  // namespace tessera
