#include "kernels/cpu/gemm.h"
#include "kernels/cpu/simd.h"

namespace tessera::TESSERA_ISA {
namespace {

// Of columns [j, j + columns) those of `row` that are not above the diagonal.
int64_t Kept(int64_t row, int64_t j, int64_t columns) {
  const int64_t kept = row + 1 - j;
  return kept < 0 ? 0 : (kept < columns ? kept : columns);
}

template <class T>
void FinishAs(const GemmArgs& args, const float* sums, int64_t ld, int64_t i, int64_t rows,
              int64_t j, int64_t columns) {
  const Product& c = args.c;
  for (int64_t r = 0; r < rows; ++r) {
    T* y = static_cast<T*>(c.data) + (c.rows ? c.rows[i + r] : i + r) * c.stride + j;
    const float* x = sums + r * ld;
    const Vec scale = Splat(args.row_scale ? args.row_scale[i + r] * args.scale : args.scale);
    const float* bias = args.bias ? args.bias + j : nullptr;
    const int64_t kept = args.lower == Lower::kResult ? Kept(i + r, j, columns) : columns;
    if (c.mode == Grad::kOverwrite)
      ForLanes(columns - kept, [&](int64_t p, int n) { Store(y + kept + p, Vec{}, n); });
    ForLanes(kept, [&](int64_t p, int n) {
      const auto load = [n](const auto* q) { return n == kLanes ? Load(q) : Load(q, n); };
      Vec v = load(x + p) * scale;
      if (bias != nullptr) v += load(bias + p);
      if (c.mode == Grad::kAccumulate) v += load(y + p);
      if (n == kLanes) {
        Store(y + p, v);
      } else {
        Store(y + p, v, n);
      }
    });
  }
}

template <class T>
void ZerosAs(const Product& c, int64_t i, int64_t rows, int64_t j, int64_t columns) {
  for (int64_t r = i; r < i + rows; ++r)
    __builtin_memset(static_cast<T*>(c.data) + r * c.stride + j, 0,
                     static_cast<size_t>(columns) * sizeof(T));
}

}  // namespace

void FinishZeros(const GemmArgs& args, int64_t i, int64_t rows, int64_t j, int64_t columns) {
  if (args.c.mode == Grad::kAccumulate || columns <= 0) return;
  if (args.c.dtype == DType::kF32) return ZerosAs<float>(args.c, i, rows, j, columns);
  ZerosAs<bf16>(args.c, i, rows, j, columns);
}

void Finish(const GemmArgs& args, const float* sums, int64_t ld, int64_t i, int64_t rows, int64_t j,
            int64_t columns) {
  if (args.c.dtype == DType::kF32) return FinishAs<float>(args, sums, ld, i, rows, j, columns);
  FinishAs<bf16>(args, sums, ld, i, rows, j, columns);
}

}  // namespace tessera::TESSERA_ISA
