#include "core/rng.h"

#include <Random123/philox.h>
#include <xxhash.h>

#include <cmath>

namespace tessera {

uint64_t Hash(absl::string_view bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

Rng::Rng(uint64_t seed, absl::string_view name) {
  const uint64_t key = XXH3_64bits_withSeed(name.data(), name.size(), seed);
  key_[0] = static_cast<uint32_t>(key);
  key_[1] = static_cast<uint32_t>(key >> 32);
}

uint64_t Rng::Bits(uint64_t i) const {
  const r123::Philox4x32::ctr_type counter = {
      {static_cast<uint32_t>(i), static_cast<uint32_t>(i >> 32), 0, 0}};
  const r123::Philox4x32::key_type key = {{key_[0], key_[1]}};
  const auto r = r123::Philox4x32()(counter, key);
  return static_cast<uint64_t>(r[1]) << 32 | r[0];
}

uint64_t Rng::Below(uint64_t i, uint64_t n) const {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(Bits(i)) * n) >> 64);
}

double Rng::Uniform(uint64_t i) const { return static_cast<double>(Bits(i) >> 11) * 0x1p-53; }

double Rng::Normal(uint64_t i) const {
  const uint64_t b = Bits(i);
  const double u = (static_cast<double>(b >> 32) + 0.5) * 0x1p-32;  // never 0
  const double v = static_cast<double>(b & 0xffffffffu) * 0x1p-32;
  return std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * v);
}

}  // namespace tessera
