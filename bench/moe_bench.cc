// The mixture of experts beside a dense feed-forward layer of equal active FLOPs: milliseconds of a
// forward pass by its parts, and of forward and backward together, medians.
// Usage: bench_moe [threads] [avx2|avx512] [fp32|bf16]

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "arch/registry.h"
#include "core/parallel.h"
#include "ops/experts.h"

namespace tessera {
namespace {

constexpr int kCalls = 15;
constexpr int64_t kTokens = 4096, kD = 256;

double Now() {
  return std::chrono::duration<double, std::milli>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

double Median(std::vector<double> t) {
  std::nth_element(t.begin(), t.begin() + static_cast<int64_t>(t.size() / 2), t.end());
  return t[t.size() / 2];
}

// Milliseconds by part, over kCalls calls.
class Watch {
 public:
  void Start() { last_ = Now(); }
  void Lap(const std::string& part) {
    const double now = Now();
    laps_[part].push_back(now - last_);
    last_ = Now();
  }
  double operator[](const std::string& part) const { return Median(laps_.at(part)); }

 private:
  double last_ = 0;
  std::map<std::string, std::vector<double>> laps_;
};

class Bench {
 public:
  explicit Bench(DType compute) : compute_(compute), x_(&memory_, {1, kTokens, kD}, compute) {
    seed_ = Tensor(&memory_, x_.shape(), compute);
    Fill(x_, "x");
    Fill(seed_, "seed");
  }

  // Forward and backward of a block, by the watch's laps "forward" and "backward".
  Watch Block(const std::string& name, const std::string& yaml, double* gflop) {
    auto config = FindBlock(name)->make_config();
    TESSERA_CHECK(ReadFields(yaml, *config).ok(), "%s", yaml.c_str());
    ParameterSet parameters(&memory_, true);
    Parameters p(&parameters, name);
    const auto block = config->Build({.D = kD, .layers = 1}, p);
    parameters.Initialise(1);
    Watch watch;
    for (int call = -2; call < kCalls; ++call) {
      Watch ignored;
      Watch& w = call < 0 ? ignored : watch;
      CostCounter counter;
      Context ctx = Training();
      ctx.counter = &counter;
      parameters.ForgetGradients();
      const Var x = Leaf(x_);
      w.Start();
      const Var y = block->Forward(ctx, x, nullptr);
      w.Lap("forward");
      ctx.Backward(y, seed_);
      w.Lap("backward");
      Cost total = counter.Total().forward;
      total += counter.Total().backward;
      *gflop = static_cast<double>(total.flops) * 1e-9;
    }
    return watch;
  }

  // The forward pass op by op.
  Watch Parts(int64_t E, int64_t k, int64_t F) {
    const auto weight = [&](const Shape& shape, const char* name) {
      Tensor w(&memory_, shape, DType::kF32);
      Fill(w, name, 0.05f);
      return Leaf(w);
    };
    const Var router = weight({E, kD}, "router"), up = weight({E, 2 * F, kD}, "up"),
              down = weight({E, kD, F}, "down");
    Watch watch;
    for (int call = -2; call < kCalls; ++call) {
      Watch ignored;
      Watch& w = call < 0 ? ignored : watch;
      Context ctx = Training();
      const Var x = Leaf(x_);
      w.Start();
      const Var logits = RouterLogits(ctx, x, router);
      w.Lap("logits");
      const Routing r = Route(ctx, logits, {.top_k = k, .balance_loss = 0.01, .z_loss = 1e-3});
      w.Lap("route");
      const Var hidden = DispatchLinear(ctx, x, up, r);
      w.Lap("up");
      const Var active = ExpertActivation(ctx, Activation::kSilu, Gating::kGated, hidden, r);
      w.Lap("activation");
      const Var y = CombineLinear(ctx, active, down, r, x.shape());
      w.Lap("down");
    }
    return watch;
  }

 private:
  Context Training() {
    Context ctx(Device::kCpu, &memory_);
    ctx.compute = compute_;
    ctx.training = true;
    ctx.SetRecording(true);
    return ctx;
  }
  static void Fill(const Tensor& t, const char* name, float scale = 1) {
    const Rng rng(1, name);
    for (int64_t i = 0; i < t.elements(); ++i) {
      const float v = scale * static_cast<float>(rng.Normal(static_cast<uint64_t>(i)));
      if (t.dtype() == DType::kF32)
        t.data<float>()[i] = v;
      else
        t.data<bf16>()[i] = bf16(v);
    }
  }

  Arena memory_{Arena::Backing::kMemory, int64_t{4} << 30};
  DType compute_;
  Tensor x_, seed_;
};

void Report(Bench& bench, const std::string& name, const std::string& yaml) {
  double gflop = 0;
  const Watch w = bench.Block(name, yaml, &gflop);
  const double ms = w["forward"] + w["backward"];
  std::printf("%-4s %-42s forward %7.2f ms   both %7.2f ms   %6.1f GFLOP/s\n", name.c_str(),
              yaml.c_str(), w["forward"], ms, gflop / ms * 1e3);
}

void ReportParts(Bench& bench, int64_t E, int64_t k, int64_t F) {
  const Watch w = bench.Parts(E, k, F);
  std::printf("     forward:");
  for (const char* part : {"logits", "route", "up", "activation", "down"})
    std::printf("  %s %.2f", part, w[part]);
  std::printf(" ms\n");
}

int Main(int argc, char** argv) {
  SetThreads(argc > 1 ? std::atoi(argv[1]) : 0);
  const std::string isa = argc > 2 ? argv[2] : Name(ActiveIsa());
  if (!SetIsa(isa == "avx2" ? Isa::kAvx2 : Isa::kAvx512)) {
    std::fprintf(stderr, "this processor has no %s\n", isa.c_str());
    return 1;
  }
  const DType compute = argc > 3 && std::string(argv[3]) == "bf16" ? DType::kBF16 : DType::kF32;
  std::printf("%ld tokens of %ld, %s, %d threads, %s\n", kTokens, kD, Name(compute), Threads(),
              Name(ActiveIsa()));
  Bench bench(compute);
  Report(bench, "moe", "{experts: 8, top_k: 2, d_ff: 320}");
  ReportParts(bench, 8, 2, 320);
  Report(bench, "mlp", "{d_ff: 640}");
  Report(bench, "moe", "{experts: 64, top_k: 4, d_ff: 64}");
  ReportParts(bench, 64, 4, 64);
  Report(bench, "mlp", "{d_ff: 256}");
  return 0;
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) { return tessera::Main(argc, argv); }
