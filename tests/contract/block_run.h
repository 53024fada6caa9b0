#ifndef TESSERA_TESTS_CONTRACT_BLOCK_RUN_H_
#define TESSERA_TESTS_CONTRACT_BLOCK_RUN_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "arch/stack.h"
#include "arch/traits.h"
#include "tests/contract/block_contract.h"

// One block at one config, and passes through it.

namespace tessera::testing {

// A block at its config, with parameters that are not at their resting values: a gate at zero or a
// gain of one would hide a missing term.
class Subject {
 public:
  Subject(const BlockCase& c, Device device);
  const BranchConfig& config() const { return config_; }
  const Block& block() const { return *block_; }
  Traits traits() const { return TraitsOf(config_); }
  int64_t D() const { return config_.shape.D; }
  ParameterSet& parameters() { return parameters_; }
  // A sequence of about T tokens that the block runs on.
  int64_t Fit(int64_t T) const;

 private:
  Arena parameter_arena_;
  ParameterSet parameters_;
  BranchConfig config_;
  std::unique_ptr<Block> block_;
};

struct Outcome {
  std::vector<double> y;
  std::vector<double> dx;
  std::map<std::string, std::vector<double>> dparameters;
  Cost cost;
  int64_t state_bytes = 0;
  double objective = 0;
};

struct Way {
  DType compute = DType::kF32;
  std::vector<int64_t> chunks;     // empty: one call without a state
  std::vector<int64_t> documents;  // starts of documents, packed
  bool gradients = false;
  bool training = true;   // with gradients: losses of the block's own and limits count too
  bool in_place = false;  // generation: caches of fixed capacity
  Device device = Device::kCpu;
};

// Input of B sequences of T tokens, those from b0 on.
std::vector<double> InputOf(int64_t B, int64_t T, int64_t D, int64_t b0 = 0);

Outcome RunBlock(Subject& s, const std::vector<double>& x, int64_t B, int64_t T, const Way& way);

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_CONTRACT_BLOCK_RUN_H_
