#include "data/permutation.h"

#include "core/check.h"

namespace tessera {

int64_t PermutedIndex(const Rng& rng, int64_t i, int64_t n) {
  TESSERA_CHECK(0 <= i && i < n && n < int64_t{1} << 62, "%ld of %ld", i, n);
  constexpr uint64_t kRounds = 6;
  int half_bits = 1;
  while ((int64_t{1} << (2 * half_bits)) < n) ++half_bits;
  const uint64_t mask = (uint64_t{1} << half_bits) - 1;
  uint64_t x = static_cast<uint64_t>(i);
  do {
    uint64_t left = x >> half_bits, right = x & mask;
    for (uint64_t round = 0; round < kRounds; ++round) {
      const uint64_t mixed = left ^ (rng.Bits(round << 32 | right) & mask);
      left = right;
      right = mixed;
    }
    x = left << half_bits | right;
  } while (x >= static_cast<uint64_t>(n));
  return static_cast<int64_t>(x);
}

}  // namespace tessera
