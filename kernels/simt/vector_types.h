#ifndef TESSERA_KERNELS_SIMT_VECTOR_TYPES_H_
#define TESSERA_KERNELS_SIMT_VECTOR_TYPES_H_

#include <cstdint>

// CUDA's own types, with its sizes and alignments.

namespace tessera::simt::device {

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(16) float4 {
  float x, y, z, w;
};

}  // namespace tessera::simt::device

#endif  // TESSERA_KERNELS_SIMT_VECTOR_TYPES_H_
