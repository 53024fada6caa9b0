#ifndef TESSERA_TESTS_CONTRACT_OP_RUN_H_
#define TESSERA_TESTS_CONTRACT_OP_RUN_H_

#include <string>
#include <utility>
#include <vector>

#include "tests/contract/op_case.h"

// One run of an op case, and of its reference.

namespace tessera::testing {

// An activation that is the middle part of a wider value, whose other columns are NaN. Others use
// the first part, and the whole: both before the op for each second input, and both after it for
// the rest, or the other way around. So each gradient is written in one run and added to in the
// other; those of fp32 inputs start at 1 in the second.
enum class Parts : uint8_t { kNone, kEvenBefore, kOddBefore };
constexpr int64_t kLeft = 3, kRight = 2;  // columns beside the middle part
constexpr float kOfWhole = 0.5f;          // what the user of the whole multiplies it by

using Pair = std::pair<size_t, size_t>;

// How one run is made.
struct Setup {
  DType compute = DType::kF32;
  Parts parts = Parts::kNone;
  std::vector<double> beside = {};  // with parts: the size of others' gradients, by input
  std::vector<Pair> aliases = {};   // the second input is the first's Var
  int only = -1;                    // this input alone wants a gradient
};

struct Outcome {
  std::vector<std::vector<double>> outputs, grads;  // grads by input, empty where not wanted
  Cost forward, backward;
  int64_t peak_bytes = 0;
};

struct Reference {
  std::vector<std::vector<double>> outputs, grads;
};

inline bool StartsAtOne(const Input& in, const Setup& setup) {
  return setup.parts == Parts::kOddBefore && in.kind == Kind::kFloat;
}
inline bool Wanted(const Input& in) { return in.wants_grad && in.kind != Kind::kInt; }

std::vector<Array<double>> MakeInputs(const OpCase& c, DType compute,
                                      const std::vector<Pair>& aliases = {});
// The types of the op's outputs.
std::vector<DType> OutputTypes(const OpCase& c, DType compute);
// Cotangents of outputs as the run rounds them; those of extra losses are 1 (coefficients are in
// the reference).
std::vector<std::vector<double>> Cotangents(const OpCase& c,
                                            const std::vector<Array<double>>& outputs,
                                            const std::vector<DType>& types);

Outcome RunCase(const OpCase& c, Device device, const Setup& setup);
// With aliases the gradient of a pair's first input is the sum of both, and the second has none.
Reference RunReference(const OpCase& c, DType compute, const std::vector<DType>& types,
                       const std::vector<Pair>& aliases = {});
// The gradient of a whole of which input i, whose own it is, is the middle part; others' are of
// this size.
std::vector<double> WithOthers(const OpCase& c, size_t i, const std::vector<double>& own,
                               double size);

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_CONTRACT_OP_RUN_H_
