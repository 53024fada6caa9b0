#ifndef TESSERA_CORE_SIZES_H_
#define TESSERA_CORE_SIZES_H_

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

// Sizes come from configs and command lines, and their products are the sizes of tensors. Every key
// has an upper bound below, and every product that several keys make is computed here, so that no
// sum of bytes anywhere leaves 64 bits.

namespace tessera {

constexpr int64_t kMaxSteps = int64_t{1} << 40;       // of a run, or between two of its events
constexpr int64_t kMaxBatch = int64_t{1} << 20;       // sequences at a time
constexpr int64_t kMaxSeq = int64_t{1} << 27;         // tokens a sequence
constexpr int64_t kMaxTokens = int64_t{1} << 27;      // batch x seq, of one pass
constexpr int64_t kMaxAccumulate = int64_t{1} << 20;  // micro-batches a step
constexpr int64_t kMaxThreads = 4096;
constexpr int64_t kMaxModelWidth = 65536;  // d_model
constexpr int64_t kMaxWidth = int64_t{1}
                              << 24;  // columns inside a block, of all its heads together
constexpr int64_t kMaxCount = 65536;  // heads, experts, groups, rows of a state
constexpr int64_t kMaxStateElements = int64_t{1} << 34;  // a layer's for a sequence
constexpr double kMaxExpansion = 64;                     // inner width / d_model

// Of one tensor, and of all tensors of a pass. More than any machine has, and far enough below 2^63
// that a kernel may count its bytes in a few products more.
constexpr int64_t kMaxTensorBytes = int64_t{1} << 56;
constexpr int64_t kMaxArenaBytes = int64_t{1} << 60;

// Sizes that are each within bounds but not together. A person's mistake, thrown because tensors
// are made where no Status can be returned.
class SizeError : public std::runtime_error {
 public:
  explicit SizeError(const std::string& what) : std::runtime_error(what) {}
};

// The product of sizes >= 0, or `most` + 1 if it exceeds `most` < 2^62.
constexpr int64_t CheckedProduct(std::initializer_list<int64_t> sizes,
                                 int64_t most = (int64_t{1} << 62) - 1) {
  int64_t product = 1;
  for (const int64_t size : sizes)
    if (size == 0) return 0;
  for (const int64_t size : sizes) {
    if (size > most / product) return most + 1;
    product *= size;
  }
  return product;
}

// Every sum of sizes >= 0 that may leave 64 bits: the largest number in place of more.
constexpr int64_t SaturatingSum(int64_t a, int64_t b) {
  return a > INT64_MAX - b ? INT64_MAX : a + b;
}

}  // namespace tessera

#endif  // TESSERA_CORE_SIZES_H_
