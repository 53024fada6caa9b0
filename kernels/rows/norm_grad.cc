#include "core/parallel.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/vmath.h"
#include "kernels/rows/norm.h"

// With n the normalised input and h the gradient that reaches it (dy gain, times silu(z) for a gate
// after the norm),
//   du = rstd (h - n mean(h n) - mean(h)),   the last term for a layer norm only,
//   dgain = sum of dy n over rows, dbias = sum of dy.

namespace tessera::TESSERA_ISA {
namespace {

// One group of one token, all pointers at its first channel.
template <class T>
struct Group {
  const T *x, *z, *dy;
  const float* gain;
  float rstd, mean;
  T *dx, *dz;
  float *dgain, *dbias;  // running sums of the block of rows, or null
  int64_t W;
};

template <NormKind kKind, NormGate kGate, class T>
void GroupGrad(const Group<T>& g, float* normal, float* incoming, float* sigmoid, Grad dx_mode,
               Grad dz_mode) {
  Vec dot{}, sum{};
  ForLanes(g.W, [&](int64_t i, int n) {
    const Vec x = Load(g.x + i, n), gain = g.gain ? Load(g.gain + i, n) : Splat(1);
    Vec u = x, dy = Load(g.dy + i, n), s{}, z{};
    if constexpr (kGate != NormGate::kNone) {
      z = Load(g.z + i, n);
      s = Sigmoid(z);
    }
    if constexpr (kGate == NormGate::kBefore) {
      u = x * (z * s);
      Store(sigmoid + i, s);
    }
    const Vec v = (u - g.mean) * g.rstd;
    if constexpr (kGate == NormGate::kAfter) {
      if (g.dz != nullptr)
        PutGrad(g.dz + i, dy * v * gain * (s * (1.0f + z * (1.0f - s))), n, dz_mode);
      dy *= z * s;
    }
    if (g.dgain != nullptr) Store(g.dgain + i, Load(g.dgain + i, n) + dy * v, n);
    if (g.dbias != nullptr) Store(g.dbias + i, Load(g.dbias + i, n) + dy, n);
    const Vec h = dy * gain;
    dot += h * v;
    if constexpr (kKind == NormKind::kLayer) sum += h;
    Store(normal + i, v);
    Store(incoming + i, h);
  });
  if (g.dx == nullptr && (kGate != NormGate::kBefore || g.dz == nullptr)) return;
  const float W = static_cast<float>(g.W);
  const float along = Sum(dot) / W, shift = kKind == NormKind::kLayer ? Sum(sum) / W : 0;
  ForLanes(g.W, [&](int64_t i, int n) {
    Vec du = (Load(incoming + i) - Load(normal + i) * along - shift) * g.rstd;
    if constexpr (kGate == NormGate::kBefore) {
      const Vec s = Load(sigmoid + i), z = Load(g.z + i, n);
      if (g.dz != nullptr)
        PutGrad(g.dz + i, du * Load(g.x + i, n) * (s * (1.0f + z * (1.0f - s))), n, dz_mode);
      du *= z * s;
    }
    if (g.dx != nullptr) PutGrad(g.dx + i, du, n, dx_mode);
  });
}

template <NormKind kKind, NormGate kGate, class T>
void BlockGrad(const Gradient<NormArgs<T>>& grad, int64_t block) {
  const NormArgs<T>&a = grad.forward, &d = grad.d;
  const int64_t W = a.D / a.G, width = (W + kLanes) / kLanes * kLanes;
  float* scratch = static_cast<float*>(ThreadScratch(3 * width * 4));
  float* dgain = d.gain ? d.partial.data + block * 2 * a.D : nullptr;
  float* dbias = d.bias ? d.partial.data + (block * 2 + 1) * a.D : nullptr;
  for (int64_t i = 0; i < a.D; ++i) {
    if (dgain != nullptr) dgain[i] = 0;
    if (dbias != nullptr) dbias[i] = 0;
  }
  const int64_t begin = block * a.block_rows(), end = begin + a.block_rows();
  for (int64_t row = begin; row < (end < a.rows ? end : a.rows); ++row)
    for (int64_t k = 0; k < a.G; ++k) {
      const int64_t c = k * W;
      const auto at = [&](const View<T>& v) { return v ? v.Row(row) + c : nullptr; };
      const auto from = [&](float* p) { return p == nullptr ? p : p + c; };
      GroupGrad<kKind, kGate>(
          Group<T>{.x = at(a.x),
                   .z = at(a.z),
                   .dy = at(d.y),
                   .gain = a.shared_gain ? a.gain.data : from(a.gain.data),
                   .rstd = a.rstd.data[row * a.G + k],
                   .mean = kKind == NormKind::kLayer ? a.mean.data[row * a.G + k] : 0,
                   .dx = at(d.x),
                   .dz = at(d.z),
                   .dgain = from(dgain),
                   .dbias = from(dbias),
                   .W = W},
          scratch, scratch + width, scratch + 2 * width, d.x.mode, d.z.mode);
    }
}

// y[j] = the sum over blocks, and over `groups` runs of `width` columns in each, of partial sums.
void SumPartials(const float* partial, int64_t blocks, int64_t stride, int64_t groups,
                 int64_t width, const View<float>& y) {
  ParallelRanges(width, 256, [&](int64_t begin, int64_t end) {
    ForLanes(end - begin, [&](int64_t i, int n) {
      Vec s{};
      for (int64_t b = 0; b < blocks; ++b)
        for (int64_t g = 0; g < groups; ++g)
          s += Load(partial + b * stride + g * width + begin + i, n);
      PutGrad(y.data + begin + i, s, n, y.mode);
    });
  });
}

template <NormKind kKind, NormGate kGate, class T>
void AllGrads(const Gradient<NormArgs<T>>& grad) {
  const NormArgs<T>&a = grad.forward, &d = grad.d;
  ParallelFor(a.blocks(), [&](int64_t block) { BlockGrad<kKind, kGate>(grad, block); });
  const int64_t groups = a.shared_gain ? a.G : 1;
  if (d.gain) SumPartials(d.partial.data, a.blocks(), 2 * a.D, groups, a.D / groups, d.gain);
  if (d.bias) SumPartials(d.partial.data + a.D, a.blocks(), 2 * a.D, 1, a.D, d.bias);
}

template <class T>
void NormGrad(const Gradient<NormArgs<T>>& a) {
  if (a.forward.kind == NormKind::kLayer) return AllGrads<NormKind::kLayer, NormGate::kNone>(a);
  switch (a.forward.gate) {
    case NormGate::kNone:
      return AllGrads<NormKind::kRms, NormGate::kNone>(a);
    case NormGate::kBefore:
      return AllGrads<NormKind::kRms, NormGate::kBefore>(a);
    case NormGate::kAfter:
      return AllGrads<NormKind::kRms, NormGate::kAfter>(a);
  }
}

}  // namespace

TESSERA_KERNEL_OF(Gradient<NormArgs<float>>, NormGrad)
TESSERA_KERNEL_OF(Gradient<NormArgs<bf16>>, NormGrad)

}  // namespace tessera::TESSERA_ISA
