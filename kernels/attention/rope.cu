#include "kernels/attention/rope.h"
#include "kernels/cuda/vector.h"

namespace tessera::TESSERA_DEVICE {
namespace {

// Thread i of a row turns pair i of every head: sine and cosine are computed once a token and pair,
// not once a head. Thread pairs + j copies channel R + j. Neighbouring threads touch neighbouring
// channels; nothing is shared.
template <class T>
struct RopeBody {
  RopeArgs<T> a;  // x and y are where it reads and writes
  float sign;
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t i) const {
    const int64_t R = a.rotation.R, pairs = R / 2;
    const T* x = a.x.Row(row);
    T* y = a.y.Row(row);
    const Grad mode = a.y.mode;
    if (i >= pairs) {
      const int64_t c = i - pairs + R;
      for (int64_t h = 0; h < a.H; ++h) PutGrad(y + h * a.K + c, ToFloat(x[h * a.K + c]), mode);
      return;
    }
    // The angle is reduced to a fraction of a turn in double, so its error does not grow with m.
    const double turns =
        a.position.data[row] * (static_cast<double>(a.rotation.high[i]) + a.rotation.low[i]);
    const auto angle = static_cast<float>(6.283185307179586 * (turns - rint(turns)));
    const float factor = a.rotation.attention_factor, cos = cosf(angle) * factor;
    const float sin = sign * sinf(angle) * factor;
    const bool halves = a.rotation.pairing == RopePairing::kHalves;
    const int64_t first = halves ? i : 2 * i, second = halves ? i + pairs : 2 * i + 1;
    for (int64_t h = 0; h < a.H; ++h) {
      const float p = ToFloat(x[h * a.K + first]), q = ToFloat(x[h * a.K + second]);
      PutGrad(y + h * a.K + first, p * cos - q * sin, mode);
      PutGrad(y + h * a.K + second, q * cos + p * sin, mode);
    }
  }
};

template <class T>
void Rope(const RopeArgs<T>& a) {
  ForElements<T>(a.B * a.T, a.K - a.rotation.R / 2, false, RopeBody<T>{a, 1});
}
template <class T>
void RopeGrad(const Gradient<RopeArgs<T>>& g) {
  RopeArgs<T> a = g.forward;
  a.x = g.d.y;
  a.y = g.d.x;
  ForElements<T>(a.B * a.T, a.K - a.rotation.R / 2, false, RopeBody<T>{a, -1});
}

}  // namespace

TESSERA_DEVICE_KERNEL_WITH_GRAD(Rope)

}  // namespace tessera::TESSERA_DEVICE
