// Times the ops on a GPU, each beside its limit: the larger of its bytes over the copy bandwidth
// and its FLOPs over the rate of a large product, both of that GPU and measured first. Forward, and
// forward and backward together, as graphs; medians.
// Usage: bench_gpu [--small] [FILTER]    a JSON document on standard output, progress beside it;
// --small: sizes for a GPU that only a test has

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/rng.h"
#include "kernels/adamw.h"
#include "kernels/device/memory.h"
#include "ops/ops.h"

namespace tessera {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr int kRounds = 7;
bool small = false;

// Sizes of a case: a real one, or one that a test can wait for.
int64_t Size(int64_t real, int64_t tiny) { return small ? tiny : real; }

double Since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Tensors with contents: normal numbers, the same four million of them again and again.
class Source {
 public:
  explicit Source(Context& ctx) : ctx_(ctx) {}

  Var Normal(const Shape& shape, DType dtype, float deviation = 1, float mean = 0) {
    const Tensor t = ctx_.New(shape, dtype);
    if (ctx_.device() == Device::kMeta) return Leaf(t);
    const int64_t block = std::min<int64_t>(t.elements(), int64_t{1} << 22);
    std::vector<float> wide(static_cast<size_t>(block));
    const Rng rng(1, "bench" + std::to_string(made_++));
    for (size_t i = 0; i < wide.size(); ++i)
      wide[i] = mean + deviation * static_cast<float>(rng.Normal(i));
    const std::vector<bf16> half(wide.begin(), wide.end());
    const void* const from =
        dtype == DType::kF32 ? static_cast<const void*>(wide.data()) : half.data();
    for (int64_t i = 0; i < t.elements(); i += block)
      Upload(ctx_.device(), t.raw() + i * SizeOf(dtype), from,
             std::min(block, t.elements() - i) * SizeOf(dtype));
    return Leaf(t);
  }
  Tensor Integers(const Shape& shape, const std::function<int64_t(int64_t)>& value) {
    const Tensor t = ctx_.New(shape, DType::kI32);
    std::vector<int32_t> v;
    for (int64_t i = 0; i < t.elements(); ++i) v.push_back(static_cast<int32_t>(value(i)));
    Upload(ctx_.device(), t.raw(), v.data(), t.bytes());
    return t;
  }
  void Positions(int64_t B, int64_t T) {
    ctx_.position = Integers({B, T}, [=](int64_t i) { return i % T; });
  }

 private:
  Context& ctx_;
  int made_ = 0;
};

// A case makes its inputs once, and then is a function of them.
using Forward = std::function<std::vector<Var>(Context&)>;
struct Case {
  std::string name;
  json shape;
  DType dtype;
  std::function<Forward(Context&, Source&)> make;
  bool backward = true;
};

// Median seconds of a graph of `work`, which has run once as it is.
double Seconds(const std::function<void()>& work) {
  std::unique_ptr<CudaDevice::Graph> graph;
  work();
  RunAsGraph(Device::kCuda, &graph, work);
  Cuda().Wait(Cuda().Mark());
  const auto time = [&](int launches) {
    const auto start = Clock::now();
    for (int i = 0; i < launches; ++i) Cuda().Launch(*graph);
    Cuda().Wait(Cuda().Mark());
    return Since(start) / launches;
  };
  const int launches = small ? 1 : std::clamp(static_cast<int>(0.02 / time(3)), 1, 1000);
  std::vector<double> seconds;
  for (int i = 0; i < (small ? 1 : kRounds); ++i) seconds.push_back(time(launches));
  std::nth_element(seconds.begin(), seconds.begin() + static_cast<int64_t>(seconds.size() / 2),
                   seconds.end());
  return seconds[seconds.size() / 2];
}

struct Limits {
  double bytes, fp32, bf16;  // a second
};

json Timed(const char* what, double seconds, const Cost& cost, DType dtype, const Limits& limits) {
  const double rate = dtype == DType::kBF16 ? limits.bf16 : limits.fp32;
  const double by_bytes = static_cast<double>(cost.bytes) / limits.bytes,
               by_flops = static_cast<double>(cost.flops) / rate;
  const double limit = std::max(by_bytes, by_flops);
  std::fprintf(stderr, "  %-16s %10.4f ms  %4.0f %% of the limit by %s\n", what, seconds * 1e3,
               100 * limit / seconds, by_bytes > by_flops ? "copy bandwidth" : "matrix rate");
  return {{"seconds", seconds},
          {"flops", cost.flops},
          {"bytes", cost.bytes},
          {"limit_seconds", limit},
          {"limited_by", by_bytes > by_flops ? "copy" : "product"}};
}

json Run(const Case& c, Arena* arena, const Limits& limits) {
  std::fprintf(stderr, "%s %s\n", c.name.c_str(), c.shape.dump().c_str());
  Context inputs(Device::kCuda, arena);
  Source source(inputs);
  const Forward forward = c.make(inputs, source);
  json row = {{"name", c.name}, {"shape", c.shape}, {"dtype", Name(c.dtype)}};
  Cost cost;
  std::vector<Tensor> cotangents;
  const auto pass = [&](bool backward) {
    CostCounter counter;
    Context ctx(Device::kCuda, arena);
    ctx.compute = c.dtype;
    ctx.position = inputs.position;
    ctx.counter = &counter;
    ctx.SetRecording(backward);
    std::vector<Var> outputs = forward(ctx);
    if (backward) {
      std::vector<std::pair<Var, Tensor>> seeds;
      for (size_t i = 0; i < outputs.size(); ++i) seeds.emplace_back(outputs[i], cotangents[i]);
      ctx.Backward(seeds);
    }
    cost = counter.Total().forward;
    cost += counter.Total().backward;
  };
  double seconds = Seconds([&] { pass(false); });
  row["forward"] = Timed("forward", seconds, cost, c.dtype, limits);
  if (!c.backward) return row;
  Context again(Device::kCuda, arena);
  again.compute = c.dtype;
  again.position = inputs.position;
  for (const Var& y : forward(again))
    cotangents.push_back(source.Normal(y.shape(), y.dtype()).value());
  seconds = Seconds([&] { pass(true); });
  row["forward_backward"] = Timed("and backward", seconds, cost, c.dtype, limits);
  return row;
}

// Calls that have no gradients to forget between them: a parameter's gradient is written anew.
Var Fresh(const Var& v) { return Leaf(v.value()); }

std::vector<Case> AllCases() {
  std::vector<Case> all;
  const DType half = DType::kBF16;
  const int64_t tokens = Size(16384, 64);
  const auto pointwise = [&](const char* name, auto op) {
    const int64_t C = Size(8192, 64);
    all.push_back({name, {{"rows", tokens}, {"C", C}}, half, [=](Context&, Source& s) -> Forward {
                     const Var x = s.Normal({1, tokens, C}, half),
                               z = s.Normal({1, tokens, C}, half),
                               gain = s.Normal({C}, DType::kF32, 0.1f, 1);
                     return [=](Context& ctx) {
                       return std::vector<Var>{op(ctx, Fresh(x), Fresh(z), Fresh(gain))};
                     };
                   }});
  };
  pointwise("add", [](Context& c, Var x, Var z, Var) { return Add(c, x, z); });
  pointwise("swiglu",
            [](Context& c, Var x, Var z, Var) { return Gated(c, Activation::kSilu, x, z); });
  pointwise("rms_norm", [](Context& c, Var x, Var, Var g) { return RmsNorm(c, x, g, 1e-6f); });
  pointwise("layer_norm",
            [](Context& c, Var x, Var, Var g) { return LayerNorm(c, x, g, Var(), 1e-6f); });
  pointwise("gated_rms_norm", [](Context& c, Var x, Var z, Var g) {
    return GatedRmsNorm(c, x, z, g, NormGate::kAfter, 1e-6f);
  });
  {
    const int64_t T = Size(2048, 16), heads = Size(32, 2), K = Size(128, 16), B = tokens / T;
    all.push_back({"rope",
                   {{"B", B}, {"T", T}, {"heads", heads}, {"K", K}},
                   half,
                   [=](Context&, Source& s) -> Forward {
                     const Var x = s.Normal({B, T, heads * K}, half);
                     s.Positions(B, T);
                     RopeRotation rotation;
                     rotation.R = K;
                     for (int64_t i = 0; i < K / 2; ++i) {
                       rotation.high[i] =
                           std::pow(1e4f, -2 * static_cast<float>(i) / static_cast<float>(K));
                       rotation.low[i] = 0;
                     }
                     return [=](Context& ctx) {
                       return std::vector<Var>{Rope(ctx, Fresh(x), heads, rotation)};
                     };
                   }});
    const int64_t C = Size(4096, 32);
    all.push_back(
        {"causal_conv",
         {{"B", B}, {"T", T}, {"C", C}, {"W", 4}},
         half,
         [=](Context&, Source& s) -> Forward {
           const Var x = s.Normal({B, T, C}, half), w = s.Normal({C, 4}, DType::kF32);
           s.Positions(B, T);
           return [=](Context& ctx) {
             return std::vector<Var>{
                 CausalConv(
                     ctx, {.x = Fresh(x), .weight = Fresh(w), .activation = ConvActivation::kSilu},
                     LastState::kDrop)
                     .y};
           };
         }});
  }
  {
    const int64_t N = Size(8192, 64), K = Size(2048, 64);
    for (const DType dtype : {half, DType::kF32})
      all.push_back({"linear",
                     {{"M", tokens}, {"N", N}, {"K", K}},
                     dtype,
                     [=](Context&, Source& s) -> Forward {
                       const Var x = s.Normal({1, tokens, K}, dtype),
                                 w = s.Normal({N, K}, DType::kF32, 0.02f);
                       return [=](Context& ctx) {
                         return std::vector<Var>{Linear(ctx, Fresh(x), Fresh(w))};
                       };
                     }});
    const int64_t V = Size(50304, 128);
    all.push_back(
        {"head_loss",
         {{"rows", tokens}, {"D", K}, {"V", V}},
         half,
         [=](Context&, Source& s) -> Forward {
           const Var x = s.Normal({1, tokens, K}, half), w = s.Normal({V, K}, DType::kF32, 0.02f);
           const Tensor target = s.Integers({1, tokens}, [=](int64_t i) { return i * 7919 % V; });
           return [=](Context& ctx) {
             return std::vector<Var>{HeadLoss(ctx, Fresh(x), Fresh(w), target)};
           };
         }});
  }
  for (const int64_t E : {8, 64})
    for (const bool skewed : {false, true}) {
      const int64_t rows = 2 * tokens, N = Size(4096, 64), K = Size(2048, 64);
      all.push_back({"grouped_linear",
                     {{"rows", rows}, {"E", E}, {"N", N}, {"K", K}, {"skewed", skewed}},
                     half,
                     [=](Context&, Source& s) -> Forward {
                       const Var x = s.Normal({1, rows, K}, half),
                                 w = s.Normal({E, N, K}, DType::kF32, 0.02f);
                       // Skewed: half of the rows go to an eighth of the experts.
                       const Tensor offsets = s.Integers({E + 1}, [=](int64_t e) {
                         if (!skewed) return e * rows / E;
                         return e <= E / 8 ? e * (rows / 2) / (E / 8)
                                           : rows / 2 + (e - E / 8) * (rows / 2) / (E - E / 8);
                       });
                       return [=](Context& ctx) {
                         return std::vector<Var>{GroupedLinear(ctx, Fresh(x), Fresh(w), offsets)};
                       };
                     }});
    }
  {
    const int64_t R = Size(262144, 64), E = 64;
    all.push_back(
        {"route", {{"R", R}, {"E", E}, {"k", 2}}, half, [=](Context&, Source& s) -> Forward {
           const Var logits = s.Normal({R, E}, DType::kF32);
           return [=](Context& ctx) {
             RoutingOptions o;
             o.top_k = 2;
             return std::vector<Var>{Route(ctx, Fresh(logits), o).weight};
           };
         }});
  }
  for (const int64_t T :
       small ? std::vector<int64_t>{64} : std::vector<int64_t>{2048, 8192, 32768}) {
    const int64_t B = std::max<int64_t>(1, tokens / T);
    for (const int64_t window : {int64_t{0}, Size(1024, 16)}) {
      const int64_t heads = Size(16, 2), K = Size(128, 16);
      all.push_back({"attention",
                     {{"B", B}, {"T", T}, {"heads", heads}, {"K", K}, {"window", window}},
                     half,
                     [=](Context&, Source& s) -> Forward {
                       const Shape shape = {B, T, heads * K};
                       const Var q = s.Normal(shape, half), k = s.Normal(shape, half),
                                 v = s.Normal(shape, half);
                       s.Positions(B, T);
                       return [=](Context& ctx) {
                         return std::vector<Var>{
                             Attention(ctx, Fresh(q), Fresh(k), Fresh(v), {},
                                       {.heads = heads,
                                        .kv_heads = heads,
                                        .window = window,
                                        .scale = 1 / std::sqrt(static_cast<float>(K))})};
                       };
                     }});
    }
    {
      const int64_t H = Size(32, 2), P = Size(64, 16), N = Size(128, 16);
      all.push_back({"ssd_scan",
                     {{"B", B}, {"T", T}, {"H", H}, {"P", P}, {"N", N}, {"G", 1}},
                     half,
                     [=](Context&, Source& s) -> Forward {
                       const Var x = s.Normal({B, T, H * P}, half),
                                 dt = s.Normal({B, T, H}, half, 1, -3),
                                 b = s.Normal({B, T, N}, half, 0.3f),
                                 c = s.Normal({B, T, N}, half, 0.3f),
                                 A = s.Normal({H}, DType::kF32, 0.5f),
                                 bias = s.Normal({H}, DType::kF32), D = s.Normal({H}, DType::kF32);
                       s.Positions(B, T);
                       return [=](Context& ctx) {
                         return std::vector<Var>{SsdScan(ctx,
                                                         {.x = Fresh(x),
                                                          .dt = Fresh(dt),
                                                          .b = Fresh(b),
                                                          .c = Fresh(c),
                                                          .A_log = Fresh(A),
                                                          .dt_bias = Fresh(bias),
                                                          .D = Fresh(D),
                                                          .N = N},
                                                         LastState::kDrop)
                                                     .y};
                       };
                     }});
    }
    {
      const int64_t H = Size(16, 2), K = Size(64, 8), V = Size(128, 16);
      all.push_back(
          {"gla_scan",
           {{"B", B}, {"T", T}, {"H", H}, {"K", K}, {"V", V}},
           half,
           [=](Context&, Source& s) -> Forward {
             const Var q = s.Normal({B, T, H * K}, half), k = s.Normal({B, T, H * K}, half),
                       v = s.Normal({B, T, H * V}, half),
                       g = s.Normal({B, T, H * K}, half, 0.01f, -0.05f);
             s.Positions(B, T);
             return [=](Context& ctx) {
               return std::vector<Var>{GlaScan(ctx,
                                               {.q = Fresh(q),
                                                .k = Fresh(k),
                                                .v = Fresh(v),
                                                .g = Fresh(g),
                                                .heads = H,
                                                .scale = 1 / std::sqrt(static_cast<float>(K))},
                                               LastState::kDrop)
                                           .y};
             };
           }});
    }
  }
  {
    // A step of decoding: one query a sequence against a cache.
    const int64_t B = Size(8, 2), L = Size(32768, 64), heads = Size(32, 2), kv = Size(8, 1),
                  K = Size(128, 16);
    all.push_back(
        {"attention_decode",
         {{"B", B}, {"L", L}, {"heads", heads}, {"kv_heads", kv}, {"K", K}},
         half,
         [=](Context&, Source& s) -> Forward {
           const Var q = s.Normal({B, 1, heads * K}, half), k = s.Normal({B, 1, kv * K}, half),
                     v = s.Normal({B, 1, kv * K}, half), past_k = s.Normal({B, L, kv * K}, half),
                     past_v = s.Normal({B, L, kv * K}, half);
           return [=](Context& ctx) {
             return std::vector<Var>{Attention(
                 ctx, q, k, v, {.k = past_k, .v = past_v, .rows = L},
                 {.heads = heads, .kv_heads = kv, .scale = 1 / std::sqrt(static_cast<float>(K))})};
           };
         },
         false});
    const int64_t N = Size(16384, 64), D = Size(4096, 64);
    all.push_back(
        {"linear_decode",
         {{"M", 1}, {"N", N}, {"K", D}},
         half,
         [=](Context&, Source& s) -> Forward {
           const Var x = s.Normal({1, 1, D}, half), w = s.Normal({N, D}, DType::kF32, 0.02f);
           return [=](Context& ctx) { return std::vector<Var>{Linear(ctx, x, w)}; };
         },
         false});
  }
  {
    const int64_t n = Size(int64_t{1} << 26, 4096);
    all.push_back(
        {"adamw",
         {{"parameters", n}},
         DType::kF32,
         [=](Context& inputs, Source& s) -> Forward {
           const Var p = s.Normal({n}, DType::kF32), g = s.Normal({n}, DType::kF32);
           const Tensor m = inputs.Zeros({n}, DType::kF32), v = inputs.Zeros({n}, DType::kF32),
                        numbers = inputs.Zeros({16}, DType::kF32);
           return [=](Context& ctx) {
             const AdamWTensor tensor = {
                 p.data<float>(), g.data<float>(), m.data<float>(), v.data<float>(), n, 0.1f};
             ctx.Run(
                 AdamWArgs{.tensors = &tensor,
                           .count = 1,
                           .beta1 = 0.9f,
                           .beta2 = 0.95f,
                           .epsilon = 1e-8f,
                           .step = reinterpret_cast<const OptimizerStep*>(numbers.raw()),
                           .outcome = reinterpret_cast<const StepOutcome*>(numbers.raw() + 32)});
             return std::vector<Var>{};
           };
         },
         false});
  }
  return all;
}

int Main(const std::string& filter) {
  if (const absl::Status open = OpenCuda(); !open.ok()) {
    std::fprintf(stderr, "bench_gpu: %s\n", std::string(open.message()).c_str());
    return 1;
  }
  const Limits limits = {.bytes = Cuda().MeasureCopyBandwidth(),
                         .fp32 = Cuda().MeasurePeakFlops(DType::kF32),
                         .bf16 = Cuda().MeasurePeakFlops(DType::kBF16)};
  std::fprintf(stderr, "%s: copies %.0f GB/s, products %.1f TFLOP/s in bf16, %.1f in fp32\n",
               Cuda().Name().c_str(), limits.bytes * 1e-9, limits.bf16 * 1e-12,
               limits.fp32 * 1e-12);
  json out = {{"device", Cuda().Name()},
              {"copy_bytes_per_second", limits.bytes},
              {"bf16_flops_per_second", limits.bf16},
              {"fp32_flops_per_second", limits.fp32},
              {"cases", json::array()}};
  Arena arena(DeviceMemory(
      Device::kCuda, small ? int64_t{64} << 20
                           : std::min<int64_t>(int64_t{24} << 30, Cuda().FreeBytes() / 4 * 3)));
  for (const Case& c : AllCases())
    if (c.name.find(filter) != std::string::npos) out["cases"].push_back(Run(c, &arena, limits));
  std::printf("%s\n", out.dump(2).c_str());
  return 0;
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  std::string filter;
  for (int i = 1; i < argc; ++i) {
    if (std::string(argv[i]) == "--small")
      tessera::small = true;
    else
      filter = argv[i];
  }
  try {
    return tessera::Main(filter);
  } catch (const tessera::CudaError& e) {
    std::fprintf(stderr, "bench_gpu: %s\n", e.what());
    return 1;
  }
}
