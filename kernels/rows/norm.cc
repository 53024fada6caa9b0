#include "kernels/rows/norm.h"

#include <cmath>

#include "core/parallel.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/vmath.h"

namespace tessera::TESSERA_ISA {
namespace {

// One group of W channels of one token. `u` is scratch for W floats.
template <NormKind kKind, NormGate kGate, class T>
void NormGroup(const T* x, const T* z, const float* gain, const float* bias, int64_t W, float eps,
               float* u, T* y, float* rstd_out, float* mean_out) {
  const auto input = [&](int64_t i, int n) {
    if constexpr (kGate == NormGate::kBefore) return Load(u + i);
    return Load(x + i, n);
  };
  if constexpr (kGate == NormGate::kBefore)
    ForLanes(W, [&](int64_t i, int n) { Store(u + i, Load(x + i, n) * Silu(Load(z + i, n))); });
  float mean = 0;
  if constexpr (kKind == NormKind::kLayer)
    mean = SumOver(W, [&](int64_t i, int n) { return input(i, n); }) / static_cast<float>(W);
  const float square = SumOver(W, [&](int64_t i, int n) {
    const Vec v = kKind == NormKind::kLayer ? KeepFirst(input(i, n) - mean, n) : input(i, n);
    return v * v;
  });
  const float rstd = 1 / std::sqrt(square / static_cast<float>(W) + eps);
  ForLanes(W, [&](int64_t i, int n) {
    Vec v = (input(i, n) - mean) * rstd;
    if (gain != nullptr) v *= Load(gain + i, n);
    if (bias != nullptr) v += Load(bias + i, n);
    if constexpr (kGate == NormGate::kAfter) v *= Silu(Load(z + i, n));
    Store(y + i, v, n);
  });
  if (rstd_out != nullptr) *rstd_out = rstd;
  if (mean_out != nullptr) *mean_out = mean;
}

template <NormKind kKind, NormGate kGate, class T>
void NormRows(const NormArgs<T>& a) {
  const int64_t W = a.D / a.G;
  ParallelRanges(a.rows, RowGrain(a.D), [&](int64_t begin, int64_t end) {
    float* u = static_cast<float*>(ThreadScratch((W + kLanes) * 4));
    for (int64_t row = begin; row < end; ++row) {
      T* const x = a.x.Row(row);
      if (a.residual) {
        const T *first = a.first.Row(row), *residual = a.residual.Row(row);
        ForLanes(a.D, [&](int64_t i, int n) {
          Store(x + i, Load(first + i, n) + a.residual_scale * Load(residual + i, n), n);
        });
      }
      for (int64_t g = 0; g < a.G; ++g) {
        const int64_t c = g * W, s = row * a.G + g;
        NormGroup<kKind, kGate>(x + c, kGate == NormGate::kNone ? nullptr : a.z.Row(row) + c,
                                a.gain ? a.gain.data + (a.shared_gain ? 0 : c) : nullptr,
                                a.bias ? a.bias.data + c : nullptr, W, a.eps, u, a.y.Row(row) + c,
                                a.rstd ? a.rstd.data + s : nullptr,
                                a.mean ? a.mean.data + s : nullptr);
      }
    }
  });
}

template <class T>
void Norm(const NormArgs<T>& a) {
  if (a.kind == NormKind::kLayer) return NormRows<NormKind::kLayer, NormGate::kNone>(a);
  switch (a.gate) {
    case NormGate::kNone:
      return NormRows<NormKind::kRms, NormGate::kNone>(a);
    case NormGate::kBefore:
      return NormRows<NormKind::kRms, NormGate::kBefore>(a);
    case NormGate::kAfter:
      return NormRows<NormKind::kRms, NormGate::kAfter>(a);
  }
}

}  // namespace

TESSERA_KERNEL(Norm)

}  // namespace tessera::TESSERA_ISA
