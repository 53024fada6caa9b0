#include "bench/cases.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/rng.h"
#include "kernels/device/memory.h"
#include "kernels/optimiser/adamw.h"

namespace tessera {
namespace {

using Made = BenchCase::Made;
using Vars = std::vector<Var>;

constexpr DType kHalf = DType::kBF16;

const std::vector<float>& Normals() {
  static const std::vector<float> normals = [] {
    std::vector<float> v(size_t{1} << 22);
    const Rng rng(1, "bench");
    for (size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(rng.Normal(i));
    return v;
  }();
  return normals;
}

float InverseRoot(int64_t width) { return 1 / std::sqrt(static_cast<float>(width)); }

class Cases {
 public:
  explicit Cases(BenchSizes sizes) : sizes_(sizes) {}

  std::vector<BenchCase> All() {
    Pointwise();
    Sequences();
    Products();
    Algebra();
    Experts();
    const std::vector<int64_t> lengths = {2048, 8192, 32768};
    for (const int64_t T : lengths)
      if (T == 2048 || sizes_ == BenchSizes::kBatch || sizes_ == BenchSizes::kOneSequence)
        Scans(Size(T, 64));
    Decoding();
    Optimizer();
    return std::move(all_);
  }

 private:
  bool small() const { return sizes_ == BenchSizes::kSmall; }
  // A real size, or one that a test can wait for.
  int64_t Size(int64_t real, int64_t tiny) const { return small() ? tiny : real; }
  bool one_sequence() const {
    return sizes_ == BenchSizes::kOneSequence || sizes_ == BenchSizes::kCpu;
  }
  int64_t Tokens() const { return one_sequence() ? 2048 : Size(16384, 64); }

  void PointwiseCase(const char* name, const char* contract, Var (*op)(Context&, Var, Var, Var)) {
    const int64_t C = Size(8192, 64), rows = Tokens();
    all_.push_back(
        {name, contract, {{"rows", rows}, {"C", C}}, kHalf, [=](Context&, BenchSource& s) -> Made {
           return {
               {s.Normal({1, rows, C}, kHalf), s.Normal({1, rows, C}, kHalf),
                s.Normal({C}, DType::kF32, 0.1f, 1)},
               [=](Context& ctx, const Vars& in) { return Vars{op(ctx, in[0], in[1], in[2])}; }};
         }});
  }
  void Pointwise() {
    PointwiseCase("add", "Pointwise", [](Context& c, Var x, Var z, Var) { return Add(c, x, z); });
    PointwiseCase("swiglu", "Pointwise",
                  [](Context& c, Var x, Var z, Var) { return Gated(c, Activation::kSilu, x, z); });
    PointwiseCase("rms_norm", "Norm",
                  [](Context& c, Var x, Var, Var g) { return RmsNorm(c, x, g, 1e-6f); });
    PointwiseCase("layer_norm", "Norm",
                  [](Context& c, Var x, Var, Var g) { return LayerNorm(c, x, g, Var(), 1e-6f); });
    PointwiseCase("gated_rms_norm", "Norm", [](Context& c, Var x, Var z, Var g) {
      return GatedRmsNorm(c, x, z, g, NormGate::kAfter, 1e-6f);
    });
  }

  void Sequences() {
    const int64_t T = Size(2048, 16), heads = Size(32, 2), K = Size(128, 16), B = Tokens() / T;
    all_.push_back(
        {"rope",
         "Rope",
         {{"B", B}, {"T", T}, {"heads", heads}, {"K", K}},
         kHalf,
         [=](Context&, BenchSource& s) -> Made {
           s.Positions(B, T);
           RopeRotation rotation;
           rotation.R = K;
           for (int64_t i = 0; i < K / 2; ++i) {
             rotation.high[i] = std::pow(1e4f, -2 * static_cast<float>(i) / static_cast<float>(K));
             rotation.low[i] = 0;
           }
           return {{s.Normal({B, T, heads * K}, kHalf)}, [=](Context& ctx, const Vars& in) {
                     return Vars{Rope(ctx, in[0], heads, rotation)};
                   }};
         }});
    const int64_t C = Size(4096, 32);
    all_.push_back({"causal_conv",
                    "CausalConv",
                    {{"B", B}, {"T", T}, {"C", C}, {"W", 4}},
                    kHalf,
                    [=](Context&, BenchSource& s) -> Made {
                      s.Positions(B, T);
                      return {{s.Normal({B, T, C}, kHalf), s.Normal({C, 4}, DType::kF32)},
                              [=](Context& ctx, const Vars& in) {
                                return Vars{CausalConv(ctx,
                                                       {.x = in[0],
                                                        .weight = in[1],
                                                        .activation = ConvActivation::kSilu},
                                                       LastState::kDrop)
                                                .y};
                              }};
                    }});
  }

  void Products() {
    const int64_t M = Tokens(), N = Size(8192, 64), K = Size(2048, 64), V = Size(50304, 128);
    for (const DType dtype : {kHalf, DType::kF32})
      all_.push_back(
          {"linear",
           "Linear",
           {{"M", M}, {"N", N}, {"K", K}},
           dtype,
           [=](Context&, BenchSource& s) -> Made {
             return {{s.Normal({1, M, K}, dtype), s.Normal({N, K}, DType::kF32, 0.02f)},
                     [](Context& ctx, const Vars& in) { return Vars{Linear(ctx, in[0], in[1])}; }};
           }});
    all_.push_back(
        {"head_loss",
         "HeadLoss",
         {{"rows", M}, {"D", K}, {"V", V}},
         kHalf,
         [=](Context&, BenchSource& s) -> Made {
           const Tensor target = s.Integers({1, M}, [=](int64_t i) { return i * 7919 % V; });
           return {{s.Normal({1, M, K}, kHalf), s.Normal({V, K}, DType::kF32, 0.02f)},
                   [=](Context& ctx, const Vars& in) {
                     return Vars{HeadLoss(ctx, in[0], in[1], target)};
                   }};
         }});
  }

  // Attention by its definition, and what else is done to the columns of rows.
  void Algebra() {
    const int64_t T = Size(2048, 32), H = Size(16, 2), K = Size(128, 16), B = Tokens() / T;
    const auto add = [&](const char* name, const char* contract, nlohmann::json shape, Shape x,
                         Shape other, Var (*op)(Context&, Var, Var)) {
      all_.push_back(
          {name, contract, std::move(shape), kHalf, [=](Context&, BenchSource& s) -> Made {
             return {{s.Normal(x, kHalf),
                      s.Normal(other, other.rank() == 1 ? DType::kF32 : kHalf, 0.1f, 1)},
                     [=](Context& ctx, const Vars& in) { return Vars{op(ctx, in[0], in[1])}; }};
           }});
    };
    const nlohmann::json heads = {{"B", B}, {"T", T}, {"H", H}, {"K", K}};
    const Shape values = {B, T, H * K}, scores = {B, T, H * T};
    add("batched_scores", "BatchedMatmul", heads, values, values, [](Context& c, Var q, Var k) {
      return BatchedMatmul(
          c, q, k,
          {.heads = HeadsOf(q), .b = Order::kTransposed, .lower = Lower::kResult, .alpha = 0.1f});
    });
    add("batched_values", "BatchedMatmul", heads, scores, values, [](Context& c, Var p, Var v) {
      return BatchedMatmul(c, p, v, {.heads = HeadsOf(v), .lower = Lower::kA});
    });
    add("softmax", "Softmax", heads, scores, values, [](Context& c, Var x, Var v) {
      return Softmax(c, x, {.groups = HeadsOf(v), .scale = 0.1f, .mask = Mask::kCausal});
    });
    const int64_t C = Size(8192, 64), rows = Tokens(), G = C / K;
    const Shape x = {1, rows, C};
    const nlohmann::json shape = {{"rows", rows}, {"C", C}};
    add("lse", "Reduce", shape, x, {C},
        [](Context& c, Var x, Var) { return Reduce(c, Reduction::kLse, x); });
    add("mean_of_heads", "Reduce", shape, x, {C},
        [](Context& c, Var x, Var) { return Reduce(c, Reduction::kMean, x, HeadsOf(x)); });
    add("scale_channels", "Broadcast", shape, x, {C},
        [](Context& c, Var x, Var v) { return BroadcastMultiply(c, x, v); });
    add("scale_heads", "Broadcast", shape, x, {1, rows, G},
        [](Context& c, Var x, Var v) { return BroadcastMultiply(c, x, v); });
  }
  // Of [B,T,H*128], or [B,T,H*16] where a test waits.
  static int64_t HeadsOf(const Var& x) { return x.dim(2) >= 128 ? x.dim(2) / 128 : x.dim(2) / 16; }

  // Rows as many as of a batch even where there is one sequence: their number chooses the kernel.
  void Experts() {
    const int64_t rows = Size(32768, 128), N = Size(4096, 64), K = Size(2048, 64);
    for (const int64_t E : {8, 64})
      for (const bool skewed : {false, true})
        all_.push_back(
            {"grouped_linear",
             "GroupedLinear",
             {{"rows", rows}, {"E", E}, {"N", N}, {"K", K}, {"skewed", skewed}},
             kHalf,
             [=](Context&, BenchSource& s) -> Made {
               // Skewed: half of the rows go to an eighth of the experts.
               const Tensor offsets = s.Integers({E + 1}, [=](int64_t e) {
                 if (!skewed) return e * rows / E;
                 return e <= E / 8 ? e * (rows / 2) / (E / 8)
                                   : rows / 2 + (e - E / 8) * (rows / 2) / (E - E / 8);
               });
               return {{s.Normal({1, rows, K}, kHalf), s.Normal({E, N, K}, DType::kF32, 0.02f)},
                       [=](Context& ctx, const Vars& in) {
                         return Vars{GroupedLinear(ctx, in[0], in[1], offsets)};
                       }};
             }});
    const int64_t R = Size(262144, 64), E = 64;
    all_.push_back({"route",
                    "Route",
                    {{"R", R}, {"E", E}, {"k", 2}},
                    kHalf,
                    [=](Context&, BenchSource& s) -> Made {
                      return {{s.Normal({R, E}, DType::kF32)}, [](Context& ctx, const Vars& in) {
                                RoutingOptions o;
                                o.top_k = 2;
                                return Vars{Route(ctx, in[0], o).weight};
                              }};
                    }});
  }

  void Scans(int64_t T) {
    const int64_t B = std::max<int64_t>(1, Tokens() / T);
    for (const int64_t window : {int64_t{0}, Size(1024, 16)}) {
      const int64_t heads = Size(16, 2), K = Size(128, 16);
      all_.push_back(
          {"attention",
           "Attention",
           {{"B", B}, {"T", T}, {"heads", heads}, {"K", K}, {"window", window}},
           kHalf,
           [=](Context&, BenchSource& s) -> Made {
             const Shape shape = {B, T, heads * K};
             s.Positions(B, T);
             return {{s.Normal(shape, kHalf), s.Normal(shape, kHalf), s.Normal(shape, kHalf)},
                     [=](Context& ctx, const Vars& in) {
                       return Vars{Attention(ctx, in[0], in[1], in[2], {},
                                             {.heads = heads,
                                              .kv_heads = heads,
                                              .window = window,
                                              .scale = InverseRoot(K)})};
                     }};
           }});
    }
    {
      const int64_t H = Size(32, 2), P = Size(64, 16), N = Size(128, 16);
      all_.push_back({"ssd_scan",
                      "SsdScan",
                      {{"B", B}, {"T", T}, {"H", H}, {"P", P}, {"N", N}, {"G", 1}},
                      kHalf,
                      [=](Context&, BenchSource& s) -> Made {
                        s.Positions(B, T);
                        return {{s.Normal({B, T, H * P}, kHalf), s.Normal({B, T, H}, kHalf, 1, -3),
                                 s.Normal({B, T, N}, kHalf, 0.3f), s.Normal({B, T, N}, kHalf, 0.3f),
                                 s.Normal({H}, DType::kF32, 0.5f), s.Normal({H}, DType::kF32),
                                 s.Normal({H}, DType::kF32)},
                                [=](Context& ctx, const Vars& in) {
                                  return Vars{SsdScan(ctx,
                                                      {.x = in[0],
                                                       .dt = in[1],
                                                       .b = in[2],
                                                       .c = in[3],
                                                       .A_log = in[4],
                                                       .dt_bias = in[5],
                                                       .D = in[6],
                                                       .N = N},
                                                      LastState::kDrop)
                                                  .y};
                                }};
                      }});
    }
    const int64_t H = Size(16, 2), K = Size(64, 8), V = Size(128, 16);
    all_.push_back({"gla_scan",
                    "GlaScan",
                    {{"B", B}, {"T", T}, {"H", H}, {"K", K}, {"V", V}},
                    kHalf,
                    [=](Context&, BenchSource& s) -> Made {
                      s.Positions(B, T);
                      return {{s.Normal({B, T, H * K}, kHalf), s.Normal({B, T, H * K}, kHalf),
                               s.Normal({B, T, H * V}, kHalf),
                               s.Normal({B, T, H * K}, kHalf, 0.01f, -0.05f)},
                              [=](Context& ctx, const Vars& in) {
                                return Vars{GlaScan(ctx,
                                                    {.q = in[0],
                                                     .k = in[1],
                                                     .v = in[2],
                                                     .g = in[3],
                                                     .heads = H,
                                                     .scale = InverseRoot(K)},
                                                    LastState::kDrop)
                                                .y};
                              }};
                    }});
  }

  // A step of decoding: one query a sequence against a cache, and a weight against one row.
  void Decoding() {
    const int64_t B = one_sequence() ? 1 : Size(8, 2), L = Size(32768, 64), heads = Size(32, 2),
                  kv = Size(8, 1), K = Size(128, 16);
    all_.push_back({"attention_decode",
                    "AttentionDecode",
                    {{"B", B}, {"L", L}, {"heads", heads}, {"kv_heads", kv}, {"K", K}},
                    kHalf,
                    [=](Context&, BenchSource& s) -> Made {
                      const Var past_k = s.Normal({B, L, kv * K}, kHalf),
                                past_v = s.Normal({B, L, kv * K}, kHalf);
                      return {{s.Normal({B, 1, heads * K}, kHalf), s.Normal({B, 1, kv * K}, kHalf),
                               s.Normal({B, 1, kv * K}, kHalf)},
                              [=](Context& ctx, const Vars& in) {
                                return Vars{Attention(
                                    ctx, in[0], in[1], in[2], {.k = past_k, .v = past_v, .rows = L},
                                    {.heads = heads, .kv_heads = kv, .scale = InverseRoot(K)})};
                              }};
                    },
                    false});
    const int64_t N = Size(16384, 64), D = Size(4096, 64);
    all_.push_back(
        {"linear_decode",
         "Linear",
         {{"M", 1}, {"N", N}, {"K", D}},
         kHalf,
         [=](Context&, BenchSource& s) -> Made {
           return {{s.Normal({1, 1, D}, kHalf), s.Normal({N, D}, DType::kF32, 0.02f)},
                   [](Context& ctx, const Vars& in) { return Vars{Linear(ctx, in[0], in[1])}; }};
         },
         false});
  }

  void Optimizer() {
    const int64_t n = Size(int64_t{1} << 26, 4096);
    all_.push_back(
        {"adamw",
         "AdamW",
         {{"parameters", n}},
         DType::kF32,
         [=](Context& inputs, BenchSource& s) -> Made {
           const Var p = s.Normal({n}, DType::kF32), g = s.Normal({n}, DType::kF32);
           const Tensor m = inputs.Zeros({n}, DType::kF32), v = inputs.Zeros({n}, DType::kF32);
           const OptimizerStep first = {
               .lr = 1e-3f, .clip = 0, .first_correction = 10, .second_correction = 20};
           const StepOutcome fine = {.loss = 1, .grad_norm = 1, .gradient_scale = 1, .halted = 0};
           std::vector<float> numbers(16);
           std::memcpy(numbers.data(), &first, sizeof first);
           std::memcpy(numbers.data() + 8, &fine, sizeof fine);
           const Tensor told = s.Floats(numbers);
           return {
               {},
               [=](Context& ctx, const Vars&) {
                 const OptimizerTensor tensor = {
                     p.data<float>(), g.data<float>(), m.data<float>(), v.data<float>(), n, 0.1f};
                 ctx.Run(
                     AdamWArgs{.tensors = &tensor,
                               .count = 1,
                               .beta1 = 0.9f,
                               .beta2 = 0.95f,
                               .epsilon = 1e-8f,
                               .step = reinterpret_cast<const OptimizerStep*>(told.raw()),
                               .outcome = reinterpret_cast<const StepOutcome*>(told.raw() + 32)});
                 return Vars{};
               },
               {p.value(), m, v}};
         },
         false});
  }

  BenchSizes sizes_;
  std::vector<BenchCase> all_;
};

}  // namespace

Var BenchSource::Normal(const Shape& shape, DType dtype, float deviation, float mean) {
  const Tensor t = ctx_.New(shape, dtype);
  if (ctx_.device() == Device::kMeta) return Leaf(t);
  const auto all = static_cast<int64_t>(Normals().size());
  const int64_t block = std::min(t.elements(), all), first = made_++ * 65537 % all;
  std::vector<float> wide;
  for (int64_t i = 0; i < block; ++i)
    wide.push_back(mean + deviation * Normals()[static_cast<size_t>((first + i) % all)]);
  const std::vector<bf16> half(wide.begin(), wide.end());
  const void* const from =
      dtype == DType::kF32 ? static_cast<const void*>(wide.data()) : half.data();
  for (int64_t i = 0; i < t.elements(); i += block)
    Upload(ctx_.device(), t.raw() + i * SizeOf(dtype), from,
           std::min(block, t.elements() - i) * SizeOf(dtype));
  return Leaf(t);
}

Tensor BenchSource::Integers(const Shape& shape, const std::function<int64_t(int64_t)>& value) {
  const Tensor t = ctx_.New(shape, DType::kI32);
  std::vector<int32_t> v;
  for (int64_t i = 0; i < t.elements(); ++i) v.push_back(static_cast<int32_t>(value(i)));
  Upload(ctx_.device(), t.raw(), v.data(), t.bytes());
  return t;
}

Tensor BenchSource::Floats(const std::vector<float>& values) {
  const Tensor t = ctx_.New({static_cast<int64_t>(values.size())}, DType::kF32);
  Upload(ctx_.device(), t.raw(), values.data(), t.bytes());
  return t;
}

void BenchSource::Positions(int64_t B, int64_t T) {
  ctx_.position = Integers({B, T}, [=](int64_t i) { return i % T; });
  ctx_.start = Integers({B, T}, [](int64_t) { return 0; });
}

std::vector<BenchCase> AllBenchCases(BenchSizes sizes) { return Cases(sizes).All(); }

}  // namespace tessera
