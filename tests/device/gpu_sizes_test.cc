#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "bench/cases.h"
#include "kernels/device/memory.h"
#include "tests/device/test_gpu.h"

// The CUDA kernels at the sizes of real models, in the GPU's own memory: the CPU's results, and the
// same bits each time (a difference that moves is a race). Where the GPU is the host's, or
// TESSERA_TEST_SMALL=1, the sizes are small: it is this test that is tried.

namespace tessera::testing {
namespace {

bool Small() {
  const char* const small = std::getenv("TESSERA_TEST_SMALL");
  return !RealGpu() || (small != nullptr && std::string(small) == "1");
}

std::vector<BenchCase> Cases() {
  return AllBenchCases(Small() ? BenchSizes::kSmall : BenchSizes::kOneSequence);
}

// Outputs, what was changed in place, and the gradients of all inputs.
struct Result {
  std::string name;
  DType dtype;
  std::vector<char> bytes;

  size_t size() const { return bytes.size() / static_cast<size_t>(SizeOf(dtype)); }
  double operator[](size_t i) const {
    if (dtype == DType::kF32) {
      float v;
      std::memcpy(&v, bytes.data() + 4 * i, 4);
      return static_cast<double>(v);
    }
    bf16 v;
    std::memcpy(&v, bytes.data() + 2 * i, 2);
    return static_cast<double>(static_cast<float>(v));
  }
};

Result Take(Device device, const std::string& name, const Tensor& t) {
  Result r = {name, t.dtype(), std::vector<char>(static_cast<size_t>(t.bytes()))};
  Download(device, r.bytes.data(), t.raw(), t.bytes());
  return r;
}

std::vector<Result> RunOn(const BenchCase& c, Device device, Arena* arena) {
  Context inputs(device, arena);
  BenchSource source(inputs);
  const BenchCase::Made made = c.make(inputs, source);
  Context ctx(device, arena);
  ctx.compute = c.dtype;
  ctx.position = inputs.position;
  ctx.start = inputs.start;
  ctx.SetRecording(c.backward);
  std::vector<Var> leaves;
  for (const Var& v : made.inputs) leaves.push_back(Leaf(v.value()));
  const std::vector<Var> outputs = made.run(ctx, leaves);
  std::vector<Result> results;
  for (size_t i = 0; i < outputs.size(); ++i)
    results.push_back(Take(device, "output " + std::to_string(i), outputs[i].value()));
  for (size_t i = 0; i < made.changed.size(); ++i)
    results.push_back(Take(device, "changed tensor " + std::to_string(i), made.changed[i]));
  if (!c.backward) return results;
  std::vector<std::pair<Var, Tensor>> seeds;
  for (const Var& y : outputs) seeds.emplace_back(y, source.Normal(y.shape(), y.dtype()).value());
  ctx.Backward(seeds);
  for (size_t i = 0; i < leaves.size(); ++i)
    if (leaves[i].grad() != nullptr && leaves[i].grad()->started)
      results.push_back(
          Take(device, "gradient of input " + std::to_string(i), leaves[i].grad()->grad));
  return results;
}

// Both round, each in its own places. The error is judged over the whole and in pieces: a wrong
// tile among thousands moves the whole too little.
void ExpectNear(const Result& got, const Result& want, bool half) {
  ASSERT_EQ(got.bytes.size(), want.bytes.size()) << got.name;
  constexpr size_t kPiece = 4096;
  const double bar = !half ? 2e-5 : got.name.starts_with("gradient") ? 2e-2 : 1e-2;
  const auto root = [](double sum, size_t n) { return std::sqrt(sum / static_cast<double>(n)); };
  double error = 0, norm = 0, worst = 0;
  size_t worst_at = 0;
  std::vector<std::pair<double, double>> pieces;  // root mean square: of the error, of the value
  for (size_t i = 0; i < want.size(); i += kPiece) {
    double piece_error = 0, piece_norm = 0;
    const size_t end = std::min(want.size(), i + kPiece);
    for (size_t j = i; j < end; ++j) {
      const double e = std::isfinite(got[j]) ? got[j] - want[j] : 1e30;
      piece_error += e * e;
      piece_norm += want[j] * want[j];
    }
    error += piece_error;
    norm += piece_norm;
    pieces.emplace_back(root(piece_error, end - i), root(piece_norm, end - i));
  }
  const double typical = root(norm, want.size());
  for (size_t p = 0; p < pieces.size(); ++p) {
    const double ratio = pieces[p].first / std::max({pieces[p].second, typical, 1e-30});
    if (ratio <= worst) continue;
    worst = ratio;
    worst_at = p * kPiece;
  }
  const double ratio = root(error, want.size()) / std::max(typical, 1e-30);
  std::printf("    %-24s error %.1e of the value, %.1e in the worst piece\n", got.name.c_str(),
              ratio, worst);
  EXPECT_GT(typical, 0) << got.name << ": there is nothing to compare";
  EXPECT_LE(ratio, bar) << got.name;
  EXPECT_LE(worst, 6 * bar) << got.name << ": elements from " << worst_at << " on";
}

class GpuSizesTest : public ::testing::TestWithParam<BenchCase> {};

TEST_P(GpuSizesTest, AgreeWithTheCpuAndRepeat) {
  const BenchCase& c = GetParam();
  const int64_t bytes = int64_t{Small() ? 1 : 12} << (Small() ? 28 : 30);
  std::vector<Result> want;
  {
    Arena arena(DeviceMemory(Device::kCpu, bytes));
    want = RunOn(c, Device::kCpu, &arena);
  }
  ASSERT_FALSE(want.empty());
  try {
    Arena arena(DeviceMemory(Device::kCuda, bytes));
    const bool grouped = c.name == "grouped_linear";
    for (const std::string use : {"auto", "never", "always"}) {
      if (use != "auto" && !(grouped && HasWgmma())) continue;
      const ScopedWgmma chosen(use.c_str());
      SCOPED_TRACE(c.name + c.shape.dump() + (grouped ? ", TESSERA_WGMMA=" + use : ""));
      const std::vector<Result> got = RunOn(c, Device::kCuda, &arena),
                                again = RunOn(c, Device::kCuda, &arena);
      ASSERT_EQ(got.size(), want.size());
      for (size_t i = 0; i < got.size(); ++i) {
        ExpectNear(got[i], want[i], c.dtype == DType::kBF16);
        EXPECT_TRUE(got[i].bytes == again[i].bytes)
            << got[i].name << ": other bits the second time";
      }
    }
  } catch (const std::runtime_error& e) {
    FAIL() << e.what();
  }
}

std::string NameOf(const ::testing::TestParamInfo<BenchCase>& info) {
  std::string name = info.param.name + "_" + Name(info.param.dtype);
  for (const auto& [key, value] : info.param.shape.items()) {
    name += "_" + key + value.dump();
  }
  std::replace_if(
      name.begin(), name.end(), [](unsigned char ch) { return !std::isalnum(ch); }, '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Simt, GpuSizesTest, ::testing::ValuesIn(Cases()), NameOf);

}  // namespace
}  // namespace tessera::testing
