#ifndef TESSERA_BENCH_GPU_CASES_H_
#define TESSERA_BENCH_GPU_CASES_H_

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "ops/ops.h"

// Ops at the sizes of real models: what bench_gpu times, and what tests/device/gpu_sizes_test.cc
// compares with the CPU.

namespace tessera {

enum class GpuSizes : uint8_t {
  kBatch,        // 16384 tokens
  kOneSequence,  // the same widths and lengths, one sequence: what a CPU can do beside it
  kSmall,        // for a GPU that only a test has
};

// Tensors with contents: normal numbers, the same four million of them from another place on for
// each tensor.
class GpuSource {
 public:
  explicit GpuSource(Context& ctx) : ctx_(ctx) {}
  Var Normal(const Shape& shape, DType dtype, float deviation = 1, float mean = 0);
  Tensor Integers(const Shape& shape, const std::function<int64_t(int64_t)>& value);
  Tensor Floats(const std::vector<float>& values);
  void Positions(int64_t B, int64_t T);

 private:
  Context& ctx_;
  int64_t made_ = 0;
};

// A case makes its inputs, and then is a function of them.
struct GpuCase {
  struct Made {
    std::vector<Var> inputs;
    std::function<std::vector<Var>(Context&, const std::vector<Var>&)> run;
    std::vector<Tensor> changed = {};  // what it writes in place
  };
  std::string name;
  nlohmann::json shape;
  DType dtype;
  std::function<Made(Context&, GpuSource&)> make;
  bool backward = true;
};

std::vector<GpuCase> AllGpuCases(GpuSizes sizes);

}  // namespace tessera

#endif  // TESSERA_BENCH_GPU_CASES_H_
