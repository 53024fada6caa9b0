#include "kernels/attention/rope.h"

#include <cmath>

#include "core/parallel.h"
#include "kernels/cpu/vmath.h"

namespace tessera::TESSERA_ISA {
namespace {

constexpr int64_t kRows = 16;  // tokens a chunk

// sin and cos of x quarter turns, |x| <= 1/2: Taylor polynomials of pi/2 x, within 1 ULP.
inline void SinCos(Vec x, Vec* sin, Vec* cos) {
  const Vec a = x * 1.57079633f, z = a * a;
  Vec s = Splat(2.71811e-6f);
  s = s * z - 1.98393348e-4f;
  s = s * z + 8.33332940e-3f;
  s = s * z - 1.66666667e-1f;
  *sin = s * z * a + a;
  Vec c = Splat(2.44331571e-5f);
  c = c * z - 1.38873162e-3f;
  c = c * z + 4.16666459e-2f;
  *cos = c * z * z - 0.5f * z + 1.0f;
}

enum class Turn : uint8_t { kForward, kBack };

// The rotations of one token, as channel factors: y = x * cos + partner(x) * sin.
struct Table {
  float *rest, *quarter;  // the angle: `quarter` (0..3) + `rest` quarter turns
  float *cos, *sin;
};

// The angle is reduced to a fraction of a turn in double, so its error does not grow with m.
template <class T>
void FillTable(const RopeArgs<T>& a, Turn turn, int32_t position, const Table& table) {
  const int64_t pairs = a.rotation.R / 2;
  const double m = position;
  for (int64_t i = 0; i < pairs; ++i) {
    const double f = static_cast<double>(a.rotation.high[i]) + a.rotation.low[i];
    const double turns = m * f, quarters = 4 * (turns - std::floor(turns));
    const double nearest = std::floor(quarters + 0.5);
    table.quarter[i] = static_cast<float>(nearest);
    table.rest[i] = static_cast<float>(quarters - nearest);
  }
  const float factor = a.rotation.attention_factor;
  const float sign = turn == Turn::kForward ? factor : -factor;
  for (int64_t i = 0; i < pairs; i += kLanes) {
    Vec sin, cos;
    SinCos(Load(table.rest + i), &sin, &cos);
    const IVec q = ToInt(Load(table.quarter + i));
    const auto odd = (q & 1) != 0;
    const Vec s = odd ? cos : sin, c = odd ? sin : cos;
    Store(table.sin + i, ((q & 2) != 0 ? -s : s) * sign);
    Store(table.cos + i, (((q + 1) & 2) != 0 ? -c : c) * factor);
  }
}

template <class T>
inline void Put(T* y, Vec v, int n, Grad mode) {
  if (mode == Grad::kAccumulate) v += Load(y, n);
  Store(y, v, n);
}

template <class T>
void RotateHalves(int64_t pairs, const Table& table, const T* x, T* y, Grad mode) {
  ForLanes(pairs, [&](int64_t i, int n) {
    const Vec low = Load(x + i, n), high = Load(x + pairs + i, n);
    const Vec c = Load(table.cos + i), s = Load(table.sin + i);
    Put(y + i, low * c - high * s, n, mode);
    Put(y + pairs + i, high * c + low * s, n, mode);
  });
}

// Spreads the factors of pair i to the channels 2i and 2i + 1.
inline void Spread(int64_t pairs, float* factor, float sign) {
  for (int64_t i = pairs - 1; i >= 0; --i) {
    factor[2 * i + 1] = factor[i];
    factor[2 * i] = sign * factor[i];
  }
}

template <class T>
void RotateInterleaved(int64_t pairs, const Table& table, const T* x, T* y, Grad mode) {
  IVec partner;
  for (int32_t i = 0; i < kLanes; ++i) partner[i] = i ^ 1;
  ForLanes(2 * pairs, [&](int64_t i, int n) {
    const Vec v = Load(x + i, n);
    Put(y + i, v * Load(table.cos + i) + __builtin_shuffle(v, partner) * Load(table.sin + i), n,
        mode);
  });
}

template <class T>
void RopeToken(const RopeArgs<T>& a, Turn turn, const T* from, T* to, Grad mode, int32_t position,
               const Table& table) {
  const int64_t pairs = a.rotation.R / 2;
  FillTable(a, turn, position, table);
  const bool interleaved = a.rotation.pairing == RopePairing::kInterleaved;
  if (interleaved) {
    Spread(pairs, table.cos, 1);
    Spread(pairs, table.sin, -1);
  }
  for (int64_t h = 0; h < a.H; ++h) {
    const T* x = from + h * a.K;
    T* y = to + h * a.K;
    if (interleaved)
      RotateInterleaved(pairs, table, x, y, mode);
    else
      RotateHalves(pairs, table, x, y, mode);
    ForLanes(a.K - a.rotation.R, [&](int64_t i, int n) {
      Put(y + a.rotation.R + i, Load(x + a.rotation.R + i, n), n, mode);
    });
  }
}

template <class T>
void Rotate(const RopeArgs<T>& a, Turn turn, const View<T>& from, const View<T>& to) {
  ParallelRanges(a.B * a.T, kRows, [&](int64_t begin, int64_t end) {
    const int64_t width = a.rotation.R + kLanes;
    float* scratch =
        static_cast<float*>(ThreadScratch(4 * width * static_cast<int64_t>(sizeof(float))));
    const Table table{scratch, scratch + width, scratch + 2 * width, scratch + 3 * width};
    for (int64_t i = 0; i < 4 * width; ++i) scratch[i] = 0;
    for (int64_t row = begin; row < end; ++row)
      RopeToken(a, turn, from.Row(row), to.Row(row), to.mode, a.position.data[row], table);
  });
}

template <class T>
void Rope(const RopeArgs<T>& a) {
  Rotate(a, Turn::kForward, a.x, a.y);
}
template <class T>
void RopeGrad(const Gradient<RopeArgs<T>>& a) {
  Rotate(a.forward, Turn::kBack, a.d.y, a.d.x);
}

}  // namespace

TESSERA_KERNEL_WITH_GRAD(Rope)

}  // namespace tessera::TESSERA_ISA
