#ifndef TESSERA_BENCH_CASES_H_
#define TESSERA_BENCH_CASES_H_

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "ops/ops.h"

// Ops at the sizes of real models: what bench_ops and bench_gpu time, and what
// tests/device/gpu_sizes_test.cc compares with the CPU.

namespace tessera {

enum class BenchSizes : uint8_t {
  kBatch,        // 16384 tokens
  kOneSequence,  // the same widths and lengths, one sequence: what a CPU can do beside it
  kCpu,          // the shorter of those
  kSmall,        // for a GPU that only a test has
};

// Tensors with contents: normal numbers, the same four million of them from another place on for
// each tensor.
class BenchSource {
 public:
  explicit BenchSource(Context& ctx) : ctx_(ctx) {}
  Var Normal(const Shape& shape, DType dtype, float deviation = 1, float mean = 0);
  Tensor Integers(const Shape& shape, const std::function<int64_t(int64_t)>& value);
  Tensor Floats(const std::vector<float>& values);
  void Positions(int64_t B, int64_t T);

 private:
  Context& ctx_;
  int64_t made_ = 0;
};

// A case makes its inputs, and then is a function of them.
struct BenchCase {
  struct Made {
    std::vector<Var> inputs;
    std::function<std::vector<Var>(Context&, const std::vector<Var>&)> run;
    std::vector<Tensor> changed = {};  // what it writes in place
  };
  std::string name;
  std::string
      contract;  // the tests of the op: TESSERA_OP_CASES(Rope, ...), or a suite of this name
  nlohmann::json shape;
  DType dtype;
  std::function<Made(Context&, BenchSource&)> make;
  bool backward = true;
};

std::vector<BenchCase> AllBenchCases(BenchSizes sizes);

}  // namespace tessera

#endif  // TESSERA_BENCH_CASES_H_
