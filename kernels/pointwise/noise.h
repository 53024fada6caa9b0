#ifndef TESSERA_KERNELS_POINTWISE_NOISE_H_
#define TESSERA_KERNELS_POINTWISE_NOISE_H_

#include "core/dtype.h"
#include "kernels/view.h"

// Random numbers where they are needed: element i of a draw is a pure function of its key, of the
// training step and of i (Philox 4x32-10, Salmon et al. 2011), so the derivative draws the same
// ones again, no thread count matters and nothing is kept. The step is read from the device's
// memory, so that a graph that is replayed draws anew.

namespace tessera {

// What tells one draw from all others of a run (Context::Draw).
struct NoiseKey {
  uint32_t key[2];
};

struct Philox4 {
  uint32_t word[4];
};
// Block `block` of the draw, four words of 32 random bits: element i is word i % 4 of block i / 4.
constexpr Philox4 PhiloxBlock(const NoiseKey& of, uint32_t step, uint64_t block) {
  uint32_t x0 = static_cast<uint32_t>(block), x1 = static_cast<uint32_t>(block >> 32), x2 = step;
  uint32_t x3 = 0, k0 = of.key[0], k1 = of.key[1];
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * x0, p1 = uint64_t{0xCD9E8D57u} * x2;
    x0 = static_cast<uint32_t>(p1 >> 32) ^ x1 ^ k0;
    x1 = static_cast<uint32_t>(p1);
    x2 = static_cast<uint32_t>(p0 >> 32) ^ x3 ^ k1;
    x3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{x0, x1, x2, x3}};
}

enum class NoiseKind : uint8_t {
  kUniform,  // in (0, 1)
  kNormal,   // mean 0, deviation 1
  kGumbel,   // -log(-log(u))
};

// y = a draw, a column fastest.
template <class T_>
struct NoiseArgs {
  static constexpr char kName[] = "noise";
  View<const int32_t> step;  // [1], or none: 0
  View<T_> y;                // [rows,C]
  int64_t rows, C;
  NoiseKey key;
  NoiseKind kind = NoiseKind::kUniform;
  template <class F>
  void Tensors(F&& f) {
    f.Index("step", step, {1}, kOptional);
    f.Out("y", y, {rows, C});
  }
  Cost cost() const {
    return {.flops = rows * C * 20, .bytes = rows * C * static_cast<int64_t>(sizeof(T_))};
  }
};

// y = x / (1 - rate) where a uniform draw is at least `rate`, else 0 (Srivastava et al. 2014).
template <class T_>
struct DropoutArgs {
  static constexpr char kName[] = "dropout", kGradName[] = "dropout_grad";
  View<T_> x;                // [rows,C]
  View<const int32_t> step;  // [1], or none: 0
  View<T_> y;                // [rows,C]
  int64_t rows, C;
  NoiseKey key;
  float rate = 0;  // in [0, 1)
  template <class F>
  void Tensors(F&& f) {
    f.In("x", x, {rows, C}, kUnread);
    f.Index("step", step, {1}, kOptional);
    f.Out("y", y, {rows, C});
  }
  // Words below it drop their element.
  constexpr uint32_t Threshold() const {
    return static_cast<uint32_t>(double{rate} * 4294967296.0);
  }
  Cost cost() const {
    return {.flops = rows * C * 12, .bytes = 2 * rows * C * static_cast<int64_t>(sizeof(T_))};
  }
  Cost grad_cost() const { return cost(); }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_POINTWISE_NOISE_H_
