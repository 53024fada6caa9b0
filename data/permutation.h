#ifndef TESSERA_DATA_PERMUTATION_H_
#define TESSERA_DATA_PERMUTATION_H_

#include <cstdint>

#include "core/rng.h"

namespace tessera {

// Where `i` of 0..n-1 goes in a random order of them: a bijection that is a pure function of the
// stream, so that an order over billions of things needs no memory and no state. A Feistel network
// (Luby & Rackoff 1988, doi:10.1137/0217022) over the next power of four, walked along its cycle
// until it is back below n. 0 <= i < n < 2^62.
int64_t PermutedIndex(const Rng& rng, int64_t i, int64_t n);

}  // namespace tessera

#endif  // TESSERA_DATA_PERMUTATION_H_
