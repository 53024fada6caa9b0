#ifndef TESSERA_CORE_RNG_H_
#define TESSERA_CORE_RNG_H_

#include <cstdint>

#include "absl/strings/string_view.h"

namespace tessera {

// Counter-based random numbers (Philox 4x32-10, Salmon et al. 2011): number i of the stream (seed,
// name) is a pure function of those three, so nothing is drawn in order, no state is saved, and
// adding a layer does not reshuffle its neighbours.
class Rng {
 public:
  Rng(uint64_t seed, absl::string_view name);
  uint64_t Bits(uint64_t i) const;               // 64 random bits
  uint64_t Below(uint64_t i, uint64_t n) const;  // in [0, n), n > 0
  double Uniform(uint64_t i) const;              // in [0, 1)
  double Normal(uint64_t i) const;               // mean 0, deviation 1 (Box-Muller)
  // What tells the stream from others, for kernels that draw by themselves.
  uint64_t key() const { return static_cast<uint64_t>(key_[1]) << 32 | key_[0]; }

 private:
  uint32_t key_[2];
};

// XXH3 of a text: the name's half of the key, also used wherever a stable hash of bytes is needed.
uint64_t Hash(absl::string_view bytes);

}  // namespace tessera

#endif  // TESSERA_CORE_RNG_H_
