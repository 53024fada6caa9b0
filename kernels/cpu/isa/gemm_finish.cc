#include "kernels/cpu/gemm.h"
#include "kernels/cpu/simd.h"

namespace tessera::TESSERA_ISA {
namespace {

template <class T>
void FinishAs(const MatmulArgs& args, const float* sums, int64_t ld, int64_t i, int64_t rows,
              int64_t j, int64_t columns) {
  const Product& c = args.c;
  for (int64_t r = 0; r < rows; ++r) {
    T* y = static_cast<T*>(c.data) + (c.rows ? c.rows[i + r] : i + r) * c.stride + j;
    const float* x = sums + r * ld;
    const Vec scale = Splat(args.row_scale ? args.row_scale[i + r] : 1.0f);
    const float* bias = args.bias ? args.bias + j : nullptr;
    ForLanes(columns, [&](int64_t p, int n) {
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

}  // namespace

void Finish(const MatmulArgs& args, const float* sums, int64_t ld, int64_t i, int64_t rows,
            int64_t j, int64_t columns) {
  if (args.c.dtype == DType::kF32) return FinishAs<float>(args, sums, ld, i, rows, j, columns);
  FinishAs<bf16>(args, sums, ld, i, rows, j, columns);
}

}  // namespace tessera::TESSERA_ISA
