#ifndef TESSERA_TESTS_CONTRACT_OP_CASE_H_
#define TESSERA_TESTS_CONTRACT_OP_CASE_H_

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "core/rng.h"
#include "ops/ops.h"
#include "tests/contract/real.h"

// An op case: shapes, inputs, the op, and a reference that computes the same by another, short
// algorithm in double. The contract (tests/contract/op_contract.cc) holds the op to it in fp32 and
// bf16, on every instruction set the processor has, with any number of threads: values, gradients,
// inputs that are parts of what is used whole as well, one value given as two inputs, accumulation,
// each gradient alone, and costs equal on the meta device.

namespace tessera::testing {

// What a reference sees of a tensor: its shape and its elements in row-major order.
template <class R>
struct Array {
  Shape shape;
  std::vector<R> v;
  Array() = default;
  explicit Array(const Shape& s) : shape(s), v(static_cast<size_t>(s.elements())) {}
  R& operator[](int64_t i) { return v[static_cast<size_t>(i)]; }
  const R& operator[](int64_t i) const { return v[static_cast<size_t>(i)]; }
};

enum class Kind : uint8_t {
  kActivation,  // of the compute type; the contract also gives it as a strided view
  kFloat,       // fp32: a parameter or a state
  kInt,         // int32, no gradient
};

struct Input {
  std::string name;
  Shape shape;
  Kind kind = Kind::kActivation;
  std::function<double(const Rng&, int64_t)> value;  // element i; default: normal with deviation 1
  bool wants_grad = true;                            // ignored for kInt
};

// The allowed distance from the reference: root mean square of the error over that of the
// reference, and the worst element over the largest element of the reference.
struct Bars {
  double fp32_rms = 2e-6, fp32_worst = 1e-5;
  double fp32_grad_rms = 1e-5, fp32_grad_worst = 1e-4;
  double bf16_rms = 5e-3, bf16_grad_rms = 2e-2;
  std::string why;  // the conditioning, where a bar is wider than these
};

struct OpCase {
  std::string name;  // letters, digits, '_'
  std::vector<Input> inputs;
  std::function<std::vector<Var>(Context&, const std::vector<Var>&)> run;
  // One array an output of run, in order, then one scalar for each extra loss that run adds
  // (Context::AddLoss), times its coefficient. Set both with SetReference.
  std::function<std::vector<Array<double>>(const std::vector<Array<double>>&)> reference;
  std::function<std::vector<Array<Real>>(const std::vector<Array<Real>>&)> reference_real;
  Bars bars;
  bool bf16 = true;                // false: why not stands in the case
  bool grouped = false;            // has grouped products, which sm_90 has its own kernels for
  bool finite_differences = true;  // false where the reference has kinks or ties
  // Of the values that two inputs share when they are one: less than 1, with the reason, where such
  // values leave no gradient to speak of.
  double alias_scale = 1;

  // f is a generic callable: [](const auto& in) { using R = ...; return std::vector<Array<R>>{...};
  // }
  template <class F>
  void SetReference(F f) {
    reference = [f](const std::vector<Array<double>>& in) { return f(in); };
    reference_real = [f](const std::vector<Array<Real>>& in) { return f(in); };
  }
};
// The scalar of a reference's arguments: ScalarOf<decltype(in)>.
template <class Arrays>
using ScalarOf = typename std::decay_t<decltype(std::declval<Arrays>()[0].v)>::value_type;

inline std::string NameOf(const ::testing::TestParamInfo<OpCase>& i) { return i.param.name; }
inline void PrintTo(const OpCase& c, std::ostream* out) { *out << c.name; }

class OpContract : public ::testing::TestWithParam<OpCase> {};
class SimtOpContract : public ::testing::TestWithParam<OpCase> {};

// Generators of input values.
std::function<double(const Rng&, int64_t)> NormalValues(double deviation, double mean = 0);
std::function<double(const Rng&, int64_t)> UniformValues(double low, double high);
std::function<double(const Rng&, int64_t)> IntsBelow(int64_t n);
std::function<double(const Rng&, int64_t)> TheseValues(std::vector<double> values);
// Where documents begin (Context::start) in rows of T tokens, each cut at `starts` (sorted); the
// document of the first token began `behind` rows before.
std::function<double(const Rng&, int64_t)> Starts(int64_t T, std::vector<int64_t> starts,
                                                  int64_t behind = 0);

// Runs the whole contract on one case; failures are gtest failures. The second: of the op's CUDA
// kernels, executed on the host.
void CheckOpCase(const OpCase& c);
void CheckOpCaseOnSimt(const OpCase& c);

// The distance between two arrays as the bars measure it.
struct Distance {
  double rms, worst;
  int64_t worst_at;
};
Distance Compare(const std::vector<double>& got, const std::vector<double>& want);

}  // namespace tessera::testing

// In tests/ops/x_case.cc: TESSERA_OP_CASES(RmsNorm, RmsNormCases()) with std::vector<OpCase>
// RmsNormCases().
#define TESSERA_OP_CASES(Name, cases)                                             \
  INSTANTIATE_TEST_SUITE_P(Name, OpContract, ::testing::ValuesIn(cases), NameOf); \
  INSTANTIATE_TEST_SUITE_P(Name, SimtOpContract, ::testing::ValuesIn(cases), NameOf)

#endif  // TESSERA_TESTS_CONTRACT_OP_CASE_H_
