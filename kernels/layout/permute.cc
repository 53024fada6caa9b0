#include "kernels/layout/permute.h"

#include "core/parallel.h"
#include "kernels/cpu/simd.h"

namespace tessera::TESSERA_ISA {
namespace {

int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t Grain(int64_t D) { return 1 + 16384 / (D + 1); }

template <class T>
void Permute(const PermuteArgs<T>& a) {
  ParallelRanges(a.rows, Grain(a.D), [&](int64_t begin, int64_t end) {
    end = Min(end, *a.used);
    for (int64_t r = begin; r < end; ++r)
      __builtin_memcpy(a.y + r * a.y_stride, a.x + a.token_of[r] * a.x_stride,
                       static_cast<size_t>(a.D) * sizeof(T));
  });
}

template <class T>
void CombineToken(const CombineArgs<T>& a, int64_t t) {
  T* y = a.y + t * a.y_stride;
  const int32_t* rows = a.row_of + t * a.k;
  const float* weight = a.weights == CombineWeights::kGiven ? a.weight + t * a.k : nullptr;
  ForLanes(a.D, [&](int64_t i, int n) {
    Vec sum = a.mode == Grad::kAccumulate ? Load(y + i, n) : Vec{};
    for (int64_t j = 0; j < a.k; ++j) {
      if (rows[j] < 0) continue;
      const T* x = a.x + rows[j] * a.x_stride + i;
      const Vec v = n == kLanes ? Load(x) : Load(x, n);
      sum += weight ? v * weight[j] : v;
    }
    if (n == kLanes) {
      Store(y + i, sum);
    } else {
      Store(y + i, sum, n);
    }
  });
}

template <class T>
void Combine(const CombineArgs<T>& a) {
  ParallelRanges(a.R, Grain(a.D * a.k), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) CombineToken(a, t);
  });
}

void Put(float* y, float v, Grad mode) { *y = mode == Grad::kAccumulate ? *y + v : v; }

template <class T>
void CombineGradRow(const CombineGradArgs<T>& a, int64_t r) {
  const int32_t slot = a.slot_of[r];
  if (r >= *a.used) {
    if (a.dweight != nullptr) Put(a.dweight + slot, 0, a.dweight_mode);
    return;
  }
  const T* dy = a.dy + a.token_of[r] * a.dy_stride;
  if (a.dweight != nullptr) {
    const T* x = a.x + r * a.x_stride;
    Vec sum{};
    ForLanes(a.D, [&](int64_t i, int n) { sum += Load(dy + i, n) * Load(x + i, n); });
    Put(a.dweight + slot, Sum(sum), a.dweight_mode);
  }
  if (a.dx == nullptr) return;
  T* dx = a.dx + r * a.dx_stride;
  const float w = a.weight[slot];
  ForLanes(a.D, [&](int64_t i, int n) {
    Vec v = Load(dy + i, n) * w;
    if (a.dx_mode == Grad::kAccumulate) v += Load(dx + i, n);
    Store(dx + i, v, n);
  });
}

template <class T>
void CombineGrad(const CombineGradArgs<T>& a) {
  ParallelRanges(a.rows, Grain(a.D), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) CombineGradRow(a, r);
  });
}

}  // namespace

TESSERA_KERNEL(Permute)
TESSERA_KERNEL(Combine)
TESSERA_KERNEL(CombineGrad)

}  // namespace tessera::TESSERA_ISA
