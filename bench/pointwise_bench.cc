// Memory-bound ops beside the copy bandwidth of this machine, measured in the same run: medians.
// Usage: bench_pointwise [threads] [avx2|avx512]

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "core/parallel.h"
#include "core/rng.h"
#include "kernels/dispatch.h"
#include "kernels/optimiser/adamw.h"
#include "kernels/pointwise/copy.h"
#include "ops/ends.h"
#include "ops/norm.h"
#include "ops/pointwise.h"
#include "ops/product.h"

namespace tessera {
namespace {

double Seconds(const std::function<void()>& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Median seconds of enough calls to fill a fifth of a second.
double Median(const std::function<void()>& f) {
  f();
  const int calls = std::clamp(static_cast<int>(0.2 / Seconds(f)), 5, 1000);
  std::vector<double> t;
  for (int i = 0; i < calls; ++i) t.push_back(Seconds(f));
  std::nth_element(t.begin(), t.begin() + calls / 2, t.end());
  return t[static_cast<size_t>(calls) / 2];
}

struct Sizes {
  int64_t rows, D;
};

Tensor Filled(Arena* arena, const Shape& shape, DType dtype) {
  const Tensor t(arena, shape, dtype);
  const Rng rng(1, "bench");
  for (int64_t i = 0; i < t.elements(); ++i) {
    const float v = static_cast<float>(rng.Normal(static_cast<uint64_t>(i)));
    if (dtype == DType::kF32)
      t.data<float>()[i] = v;
    else
      t.data<bf16>()[i] = bf16(v);
  }
  return t;
}

double CopyRate(Arena* arena, const Sizes& s, DType dtype) {
  const Tensor x = Filled(arena, {s.rows, s.D}, dtype), y(arena, {s.rows, s.D}, dtype);
  const double t = Median([&] {
    ByDType(dtype, [&](auto tag) {
      using T = decltype(tag);
      Dispatch(Device::kCpu, CopyArgs<T>{.x = x.data<T>(),
                                         .x_stride = s.D,
                                         .y = y.data<T>(),
                                         .y_stride = s.D,
                                         .mode = Grad::kOverwrite,
                                         .rows = s.rows,
                                         .C = s.D});
    });
  });
  return 2.0 * static_cast<double>(x.bytes()) / t;
}

struct Op {
  std::string name;
  int activations;  // inputs of the size of x
  int parameters;
  std::function<Var(Context&, const std::vector<Var>&)> run;
};

// Times the forward pass, and the forward and backward pass less the forward pass.
void Time(Arena* arena, const Op& op, const Sizes& s, DType dtype, double copy_rate) {
  std::vector<Var> constants, leaves;
  for (int i = 0; i < op.activations; ++i)
    constants.push_back(Var(Filled(arena, {1, s.rows, s.D}, dtype)));
  for (int i = 0; i < op.parameters; ++i)
    constants.push_back(Var(Filled(arena, {s.D}, DType::kF32)));
  for (const Var& v : constants) leaves.push_back(Leaf(v.value()));
  CostCounter counter;
  Context ctx(Device::kCpu, arena);
  ctx.compute = dtype;
  ctx.counter = &counter;
  const Tensor dy = Filled(arena, {1, s.rows, s.D}, dtype);
  const double forward = Median([&] {
    counter.Clear();
    op.run(ctx, constants);
  });
  const Cost forward_cost = counter.Total().forward;
  ctx.SetRecording(true);
  const double both = Median([&] {
    counter.Clear();
    for (const Var& v : leaves) v.grad()->Forget();
    ctx.Backward(op.run(ctx, leaves), dy);
  });
  const auto row = [&](const char* pass, double t, const Cost& cost) {
    const double rate = static_cast<double>(cost.bytes) / t;
    std::printf("%-4s %5ld x %-5ld %-20s %-8s %8.0f us %6.1f GB/s  %.2f of copy\n", Name(dtype),
                s.rows, s.D, op.name.c_str(), pass, t * 1e6, rate / 1e9, rate / copy_rate);
  };
  row("forward", forward, forward_cost);
  row("gradient", both - forward, counter.Total().backward);
  std::fflush(stdout);
}

const std::vector<Op>& Ops() {
  static const std::vector<Op> ops = {
      {"rms_norm", 1, 1, [](Context& c, const auto& v) { return RmsNorm(c, v[0], v[1], 1e-5f); }},
      {"layer_norm", 1, 2,
       [](Context& c, const auto& v) { return LayerNorm(c, v[0], v[1], v[2], 1e-5f); }},
      {"rms_norm_heads", 1, 1,
       [](Context& c, const auto& v) { return RmsNorm(c, v[0], v[1], 1e-5f, v[0].dim(-1) / 64); }},
      {"gate_then_norm", 2, 1,
       [](Context& c, const auto& v) {
         return GatedRmsNorm(c, v[0], v[1], v[2], NormGate::kBefore, 1e-5f);
       }},
      {"norm_then_gate", 2, 1,
       [](Context& c, const auto& v) {
         return GatedRmsNorm(c, v[0], v[1], v[2], NormGate::kAfter, 1e-5f);
       }},
      {"swiglu", 2, 0,
       [](Context& c, const auto& v) { return Gated(c, Activation::kSilu, v[0], v[1]); }},
      {"geglu", 2, 0,
       [](Context& c, const auto& v) { return Gated(c, Activation::kGelu, v[0], v[1]); }},
      {"gelu", 1, 0,
       [](Context& c, const auto& v) { return Activate(c, Activation::kGelu, v[0]); }},
      {"add", 2, 0, [](Context& c, const auto& v) { return Add(c, v[0], v[1]); }}};
  return ops;
}

void TimeAdamW(Arena* arena, double copy_rate) {
  const int64_t n = int64_t{1} << 22;
  std::vector<Tensor> t;
  for (int i = 0; i < 4; ++i) t.push_back(Filled(arena, {n}, DType::kF32));
  for (int64_t i = 0; i < n; ++i) t[3].data<float>()[i] *= t[3].data<float>()[i];
  const OptimizerTensor tensor{
      t[0].data<float>(), t[1].data<float>(), t[2].data<float>(), t[3].data<float>(), n, 0.1f};
  const OptimizerStep step = {.lr = 1e-6f, .first_correction = 1, .second_correction = 1};
  const StepOutcome outcome = {.gradient_scale = 1};
  const AdamWArgs args{.tensors = &tensor,
                       .count = 1,
                       .beta1 = 0.9f,
                       .beta2 = 0.95f,
                       .epsilon = 1e-8f,
                       .step = &step,
                       .outcome = &outcome};
  const double seconds = Median([&] { Dispatch(Device::kCpu, args); });
  const double rate = static_cast<double>(args.cost().bytes) / seconds;
  std::printf("fp32 adamw, %ld parameters: %.0f us %.1f GB/s  %.2f of copy\n", n, seconds * 1e6,
              rate / 1e9, rate / copy_rate);
}

// The head and its loss with all gradients, beside three products alone.
void TimeHead(Arena* arena, int64_t rows, int64_t V, int64_t D, DType dtype) {
  const Var h = Leaf(Filled(arena, {1, rows, D}, dtype)),
            w = Leaf(Filled(arena, {V, D}, DType::kF32));
  const Tensor targets(arena, {1, rows}, DType::kI32), seed(arena, {1}, DType::kF32);
  for (int64_t i = 0; i < w.value().elements(); ++i) w.data<float>()[i] *= 0.05f;
  for (int64_t r = 0; r < rows; ++r) targets.data<int32_t>()[r] = static_cast<int32_t>(r * 7 % V);
  *seed.data<float>() = 1;
  Context ctx(Device::kCpu, arena);
  ctx.compute = dtype;
  const auto run = [&](const std::function<Var()>& forward, const Tensor& dy) {
    return Median([&] {
      h.grad()->Forget();
      w.grad()->Forget();
      ctx.SetRecording(true);
      ctx.Backward(forward(), dy);
    });
  };
  const double head = run([&] { return HeadLoss(ctx, h, w, targets); }, seed);
  const Tensor dy = Filled(arena, {1, rows, V}, dtype);
  const double linear = run([&] { return Linear(ctx, h, w); }, dy);
  const double flops = 6.0 * static_cast<double>(rows * V * D);
  std::printf("%-4s head_loss %5ld rows, V %5ld, D %4ld: %8.0f us %6.1f GFLOP/s  %.2f of linear\n",
              Name(dtype), rows, V, D, head * 1e6, flops / head / 1e9, linear / head);
  std::fflush(stdout);
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  using namespace tessera;
  SetThreads(argc > 1 ? std::atoi(argv[1]) : 0);
  const std::string isa = argc > 2 ? argv[2] : "";
  if (!isa.empty() && !SetIsa(isa == "avx2" ? Isa::kAvx2 : Isa::kAvx512)) {
    std::fprintf(stderr, "this processor has no %s\n", isa.c_str());
    return 1;
  }
  Arena arena(Arena::Backing::kMemory, int64_t{3} << 30);
  std::printf("%d threads, %s\n", Threads(), Name(ActiveIsa()));
  double copy_rate = 0;
  for (const DType dtype : {DType::kF32, DType::kBF16})
    for (const Sizes& s : {Sizes{512, 256}, Sizes{16384, 768}}) {
      copy_rate = CopyRate(&arena, s, dtype);
      std::printf("%-4s %5ld x %-5ld copy %.1f GB/s\n", Name(dtype), s.rows, s.D, copy_rate / 1e9);
      for (const Op& op : Ops()) Time(&arena, op, s, dtype, copy_rate);
    }
  TimeAdamW(&arena, CopyRate(&arena, {16384, 768}, DType::kF32));
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    TimeHead(&arena, 4096, 256, 256, dtype);
    TimeHead(&arena, 2048, 32000, 256, dtype);
  }
}
