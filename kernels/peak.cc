#include "kernels/peak.h"

#include "core/parallel.h"
#include "kernels/cpu/simd.h"

namespace tessera::TESSERA_ISA {

namespace {

// More than hide the latency of four cycles of two units; all in registers.
constexpr int kChains = 12;

struct Fp32 {
  static constexpr int64_t kFlops = 2 * kLanes;
  static Vec Step(Vec a, Vec x, Vec y) { return Fma(x, y, a); }
};
#ifdef __AVX512BF16__
struct Bf16 {
  static constexpr int64_t kFlops = 4 * kLanes;
  static Vec Step(Vec a, Vec x, Vec y) { return _mm512_dpbf16_ps(a, (__m512bh)x, (__m512bh)y); }
};
#else
using Bf16 = Fp32;  // bf16 is widened
#endif

template <class Unit>
void Burst(int64_t chunks, int64_t rounds, float* sink, int64_t* flops) {
  ParallelFor(chunks, [&](int64_t chunk) {
    const Vec x = Splat(0x1p-20f), y = x;
    // Named one by one: an array of them would be kept in memory.
    Vec c0{}, c1{}, c2{}, c3{}, c4{}, c5{}, c6{}, c7{}, c8{}, c9{}, c10{}, c11{};
    for (int64_t r = 0; r < rounds; ++r) {
      c0 = Unit::Step(c0, x, y), c1 = Unit::Step(c1, x, y), c2 = Unit::Step(c2, x, y);
      c3 = Unit::Step(c3, x, y), c4 = Unit::Step(c4, x, y), c5 = Unit::Step(c5, x, y);
      c6 = Unit::Step(c6, x, y), c7 = Unit::Step(c7, x, y), c8 = Unit::Step(c8, x, y);
      c9 = Unit::Step(c9, x, y), c10 = Unit::Step(c10, x, y), c11 = Unit::Step(c11, x, y);
      // From here on the compiler knows nothing about the chains, so it keeps them all apart.
      asm volatile(""
                   : "+v"(c0), "+v"(c1), "+v"(c2), "+v"(c3), "+v"(c4), "+v"(c5), "+v"(c6), "+v"(c7),
                     "+v"(c8), "+v"(c9), "+v"(c10), "+v"(c11));
    }
    sink[chunk] = Sum(c0 + c1 + c2 + c3 + c4 + c5 + c6 + c7 + c8 + c9 + c10 + c11);
    flops[chunk] = rounds * kChains * Unit::kFlops;
  });
}

void Peak(const PeakArgs<float>& a) { Burst<Fp32>(a.chunks, a.rounds, a.sink, a.flops); }
void Peak(const PeakArgs<bf16>& a) { Burst<Bf16>(a.chunks, a.rounds, a.sink, a.flops); }

}  // namespace

TESSERA_KERNEL(Peak)

}  // namespace tessera::TESSERA_ISA
