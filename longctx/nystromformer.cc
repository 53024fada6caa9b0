#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "arch/block.h"
#include "core/sizes.h"
#include "ops/algebra.h"
#include "ops/convolution.h"
#include "ops/pointwise.h"
#include "ops/product.h"
#include "ops/projection.h"
#include "ops/sequence.h"
#include "ops/shape.h"
#include "ops/time.h"

// Softmax attention through m landmarks (Nystromformer: Xiong et al. 2021, arXiv:2102.03902,
// section 3): the means Q~ and K~ of m groups of tokens give
//   softmax(Q K~^T) softmax(Q~ K~^T)^+ softmax(Q~ K^T) V + conv(V),
// which costs O(T m), with the inverse by six steps of eq. (11) and a depthwise convolution over
// the values beside it, of 7 taps at most, fewer than the paper's. Each token sees the whole
// sequence: an encoder's layer.

namespace tessera {
namespace {

struct NystromConfig {
  int64_t heads = 4, landmarks = 32, conv = 7, steps = 6;
  std::optional<int64_t> head_dim;

  void Fields(FieldList& f) {
    f.Add("heads", heads, Between(1, kMaxCount), "query, key and value heads");
    f.Add("head_dim", head_dim, Between(1, kMaxCount), "width of a head; none is d_model / heads");
    f.Add("landmarks", landmarks, Between(1, 4096), "groups of tokens, at most");
    f.Add("conv", conv, Between(0, 7), "width of the convolution over the values, odd; 0: none");
    f.Add("steps", steps, Between(1, 64), "towards the inverse");
  }
  absl::Status Check(const BlockShape& in) const {
    if (!head_dim && in.D % heads != 0)
      return absl::InvalidArgumentError("heads = " + std::to_string(heads) +
                                        " does not divide d_model = " + std::to_string(in.D) +
                                        "; change heads or give head_dim");
    if (conv == 1 || (conv > 0 && conv % 2 == 0))
      return absl::InvalidArgumentError("conv = " + std::to_string(conv) +
                                        "; use 3, 5 or 7 taps, or 0 for none");
    return absl::OkStatus();
  }
  Traits TraitsAt(const BlockShape&) const {
    return {.causal = Causal::kNever,
            .packs = false,
            .decodes = false,
            .why = "its landmarks are means over the whole sequence"};
  }
  int64_t Width(int64_t D) const { return heads * head_dim.value_or(D / heads); }
};

class Nystromformer final : public Block {
 public:
  Nystromformer(const NystromConfig& c, const BlockShape& in, Parameters& p)
      : config_(c),
        width_(c.Width(in.D)),
        qkv_(p.Linear("qkv",
                      {{.name = "q", .rows = width_},
                       {.name = "k", .rows = width_},
                       {.name = "v", .rows = width_}},
                      in.D)),
        out_(p.Linear(
            "out",
            {{.rows = in.D, .init = Normal(0.02 / std::sqrt(2 * static_cast<double>(in.layers)))}},
            width_)) {
    if (c.conv > 0)
      conv_ = p.Add("conv", {width_, c.conv}, Symmetric(1 / std::sqrt(c.conv)), Decay::kNo);
  }

  Var Forward(Context& ctx, const Var& x, State*) const override {
    const std::vector<Var> qkv = Split(ctx, Linear(ctx, x, qkv_), qkv_.widths);
    const Var &q = qkv[0], &k = qkv[1], &v = qkv[2];
    const int64_t group = GroupsOf(x.dim(1), config_.landmarks);
    const Var q_mean = Pool(ctx, q, group), k_mean = Pool(ctx, k, group);
    const Var near = Scores(ctx, q, k_mean), middle = Scores(ctx, q_mean, k_mean),
              far = Scores(ctx, q_mean, k);
    const Var values = Product(ctx, far, v);
    const Var seen = Product(ctx, Inverse(ctx, middle), values);
    Var o = Product(ctx, near, seen, ctx.compute);
    if (config_.conv > 0) o = Add(ctx, o, Beside(ctx, v));
    return Linear(ctx, o, out_);
  }

  StateSize States(DType) const override { return {}; }

 private:
  // Sums over many tokens and the inverse are fp32.
  Var Product(Context& ctx, const Var& a, const Var& b, DType result = DType::kF32) const {
    return BatchedMatmul(ctx, a, b, {.heads = config_.heads, .result = result});
  }
  Var Scores(Context& ctx, const Var& q, const Var& k) const {
    const Var s = BatchedMatmul(
        ctx, q, k, {.heads = config_.heads, .b = Order::kTransposed, .result = DType::kF32});
    const double head = static_cast<double>(width_ / config_.heads);
    return Softmax(ctx, s,
                   {.groups = config_.heads, .scale = static_cast<float>(1 / std::sqrt(head))});
  }

  // Z -> (13 Z - Z (15 AZ - AZ (7 AZ - AZ AZ))) / 4, from A^T over the largest column sum of A: the
  // rows of a softmax add up to 1.
  Var Inverse(Context& ctx, const Var& a) const {
    const int64_t B = a.dim(0), m = a.dim(1), H = config_.heads;
    const Var identity =
        Softmax(ctx, Var(ctx.Zeros(a.shape(), a.dtype())),
                {.groups = H, .low = Count(ctx, B, m, 0), .high = Count(ctx, B, m, 1)});
    const Var transposed = BatchedMatmul(
        ctx, a, identity, {.heads = H, .a = Order::kTransposed, .result = DType::kF32});
    const Var sums = Pool(ctx, a, m, Pooling::kSum);
    const Var largest = Reduce(ctx, Reduction::kMax, sums, H);
    const Var factor = Repeat(ctx, Activate(ctx, Activation::kReciprocal, largest), m, m);
    Var z = BroadcastMultiply(ctx, transposed, factor);
    for (int64_t step = 0; step < config_.steps; ++step) {
      const Var p = Product(ctx, a, z);
      const Var inner = Add(ctx, Scale(ctx, p, 7), Product(ctx, p, p), -1);
      const Var outer = Add(ctx, Scale(ctx, p, 15), Product(ctx, p, inner), -1);
      z = Add(ctx, Scale(ctx, z, 13.0F / 4), Product(ctx, z, outer), -1.0F / 4);
    }
    return z;
  }

  // Half the convolution's width lies behind a token: it is shifted by that, over zeros.
  Var Beside(Context& ctx, const Var& v) const {
    const int64_t half = config_.conv / 2;
    const Var zeros(ctx.Zeros({v.dim(0), half, v.dim(2)}, v.dtype()));
    const OtherSequence other(ctx, Tensor(), Tensor());
    const Var y =
        CausalConv(ctx, {.x = ConcatTime(ctx, std::vector<Var>{v, zeros}), .weight = conv_},
                   LastState::kDrop)
            .y;
    return SliceTime(ctx, y, half, v.dim(1));
  }

  NystromConfig config_;
  int64_t width_;
  Projection qkv_, out_;
  Var conv_;
};

}  // namespace

extern constexpr BlockType kNystromformer = DefineBlock<Nystromformer, NystromConfig>(
    "nystromformer", "Attention through landmarks", "arXiv:2102.03902");

}  // namespace tessera
