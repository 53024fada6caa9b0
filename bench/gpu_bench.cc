// Times the ops on a GPU, each beside its limit: the larger of its bytes over the copy bandwidth
// and its FLOPs over the rate of a large product, both of that GPU and measured first. Forward, and
// forward and backward together, as graphs; medians.
// Usage: bench_gpu [--small] [--out FILE] [FILTER]
// A JSON document in FILE, written anew after each case, or on standard output at the end; progress
// beside it. A case that fails says so in its row. --small: sizes for a GPU that only a test has;
// --device: the GPU's name and nothing else

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/cases.h"
#include "kernels/device/memory.h"

namespace tessera {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr int kRounds = 7;
bool small = false;

double Since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

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

json Run(const BenchCase& c, Arena* arena, const Limits& limits) {
  std::fprintf(stderr, "%s %s\n", c.name.c_str(), c.shape.dump().c_str());
  Context inputs(Device::kCuda, arena);
  BenchSource source(inputs);
  const BenchCase::Made made = c.make(inputs, source);
  // New leaves have no gradients to add to: each is written anew.
  const auto forward = [&](Context& ctx) {
    std::vector<Var> fresh;
    for (const Var& v : made.inputs) fresh.push_back(Leaf(v.value()));
    return made.run(ctx, fresh);
  };
  json row = {{"name", c.name}, {"shape", c.shape}, {"dtype", Name(c.dtype)}};
  Cost cost;
  std::vector<Tensor> cotangents;
  const auto pass = [&](bool backward) {
    CostCounter counter;
    Context ctx(Device::kCuda, arena);
    ctx.compute = c.dtype;
    ctx.position = inputs.position;
    ctx.start = inputs.start;
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
  again.start = inputs.start;
  for (const Var& y : forward(again))
    cotangents.push_back(source.Normal(y.shape(), y.dtype()).value());
  seconds = Seconds([&] { pass(true); });
  row["forward_backward"] = Timed("and backward", seconds, cost, c.dtype, limits);
  return row;
}

struct Options {
  std::string filter, out;
  bool name_only = false;
};

// Whole or not at all: whoever stops this program finds the cases before.
void Write(const json& document, const std::string& path) {
  const std::string text = document.dump(2) + "\n", beside = path + ".new";
  FILE* const file = std::fopen(beside.c_str(), "w");
  const bool written =
      file != nullptr && std::fwrite(text.data(), 1, text.size(), file) == text.size();
  if (file == nullptr || std::fclose(file) != 0 || !written ||
      std::rename(beside.c_str(), path.c_str()) != 0)
    throw std::runtime_error("cannot write " + path + ": " + std::strerror(errno));
}

int Main(const Options& o) {
  if (const absl::Status open = OpenCuda(); !open.ok()) {
    std::fprintf(stderr, "bench_gpu: %s\n", std::string(open.message()).c_str());
    return 1;
  }
  if (o.name_only) return std::printf("%s\n", Cuda().Name().c_str()) < 0;
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
  bool good = true;
  for (const BenchCase& c : AllBenchCases(small ? BenchSizes::kSmall : BenchSizes::kBatch)) {
    if (c.name.find(o.filter) == std::string::npos) continue;
    try {
      out["cases"].push_back(Run(c, &arena, limits));
    } catch (const CudaError& e) {
      std::fprintf(stderr, "bench_gpu: %s: %s\n", c.name.c_str(), e.what());
      out["cases"].push_back(
          {{"name", c.name}, {"shape", c.shape}, {"dtype", Name(c.dtype)}, {"error", e.what()}});
      good = false;
    }
    if (!o.out.empty()) Write(out, o.out);
  }
  if (out["cases"].empty()) {
    std::fprintf(stderr, "bench_gpu: no case has '%s' in its name\n", o.filter.c_str());
    return 1;
  }
  if (o.out.empty())
    good &= std::printf("%s\n", out.dump(2).c_str()) > 0 && std::fflush(stdout) == 0;
  return good ? 0 : 1;
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  tessera::Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--small") {
      tessera::small = true;
    } else if (argument == "--device") {
      o.name_only = true;
    } else if (argument == "--out" && i + 1 < argc) {
      o.out = argv[++i];
    } else if (argument.starts_with("-") || !o.filter.empty()) {
      std::fprintf(stderr,
                   "bench_gpu: %s? usage: bench_gpu [--small] [--out FILE] [--device] [FILTER]\n",
                   argv[i]);
      return 2;
    } else {
      o.filter = argument;
    }
  }
  try {
    return tessera::Main(o);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bench_gpu: %s\n", e.what());
    return 1;
  }
}
