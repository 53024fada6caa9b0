#include "kernels/cuda/vector.h"
#include "kernels/pointwise/noise.h"

// A thread has N elements of a row; neighbours draw the same block of four words and keep one each,
// which costs less than to hand them over. The floor is the bytes at copy bandwidth.

namespace tessera::TESSERA_DEVICE {
namespace {

// Element i of a draw.
struct Drawn {
  NoiseKey key;
  const int32_t* step;
  __device__ __forceinline__ uint32_t At(int64_t i) const {
    const uint32_t now = step == nullptr ? 0 : static_cast<uint32_t>(*step);
    const Philox4 four = PhiloxBlock(key, now, static_cast<uint64_t>(i / 4));
    const int64_t j = i % 4;
    return j < 2 ? (j == 0 ? four.word[0] : four.word[1]) : (j == 2 ? four.word[2] : four.word[3]);
  }
};

__device__ __forceinline__ float Uniform(uint32_t word) {
  return (static_cast<float>(word >> 8) + 0.5f) * 5.9604644775390625e-8f;
}

template <class T>
struct NoiseBody {
  NoiseArgs<T> a;
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t c) const {
    const Drawn drawn{a.key, a.step.data};
    float y[N];
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const int64_t i = row * a.C + c + k;
      if (a.kind == NoiseKind::kNormal) {
        const float u = Uniform(drawn.At(i / 2 * 2)), v = Uniform(drawn.At(i / 2 * 2 + 1));
        const float radius = sqrtf(-2 * logf(u)), angle = 6.283185307f * v;
        y[k] = radius * (i % 2 == 0 ? cosf(angle) : sinf(angle));
      } else {
        y[k] = Uniform(drawn.At(i));
        if (a.kind == NoiseKind::kGumbel) y[k] = -logf(-logf(y[k]));
      }
    }
    Store(a.y.Row(row) + c, y);
  }
};

template <class T>
struct DropoutBody {
  View<T> from, to;
  Drawn drawn;
  int64_t C;
  uint32_t least;
  float scale;
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t c) const {
    float v[N];
    Load(from.Row(row) + c, v);
#pragma unroll
    for (int k = 0; k < N; ++k) v[k] *= drawn.At(row * C + c + k) >= least ? scale : 0;
    PutGrad(to.Row(row) + c, v, to.mode);
  }
};

template <class T>
void Drop(const DropoutArgs<T>& a, const View<T>& from, const View<T>& to) {
  ForElements<T>(
      a.rows, a.C, Aligned(from) && Aligned(to),
      DropoutBody<T>{from, to, {a.key, a.step.data}, a.C, a.Threshold(), 1 / (1 - a.rate)});
}

template <class T>
void Noise(const NoiseArgs<T>& a) {
  ForElements<T>(a.rows, a.C, Aligned(a.y), NoiseBody<T>{a});
}
template <class T>
void Dropout(const DropoutArgs<T>& a) {
  Drop(a, a.x, a.y);
}
template <class T>
void DropoutGrad(const Gradient<DropoutArgs<T>>& a) {
  Drop(a.forward, a.d.y, a.d.x);
}

}  // namespace

TESSERA_DEVICE_KERNEL(Noise)
TESSERA_DEVICE_KERNEL_WITH_GRAD(Dropout)

}  // namespace tessera::TESSERA_DEVICE
