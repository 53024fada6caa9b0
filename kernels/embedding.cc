#include "kernels/embedding.h"

#include "core/check.h"
#include "core/parallel.h"
#include "kernels/cpu/simd.h"

namespace tessera::TESSERA_ISA {
namespace {

template <class T>
void Embedding(const EmbeddingArgs<T>& a) {
  ParallelRanges(a.rows, 64, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t v = a.token[r];
      TESSERA_CHECK(v >= 0 && v < a.V, "token %ld of a vocabulary of %ld", v, a.V);
      const float* from = a.table + v * a.D;
      T* to = a.y + r * a.y_stride;
      ForLanes(a.D, [&](int64_t i, int n) { Store(to + i, Load(from + i, n), n); });
    }
  });
}

// A chunk owns a stripe of columns of the whole table, so no two write the same element and every
// sum has the order of the rows.
template <class T>
void EmbeddingGrad(const EmbeddingGradArgs<T>& a) {
  constexpr int64_t kStripe = 64;
  ParallelRanges(a.D, kStripe, [&](int64_t begin, int64_t end) {
    const int64_t width = end - begin;
    if (a.dtable_mode == Grad::kOverwrite)
      for (int64_t v = 0; v < a.V; ++v)
        __builtin_memset(a.dtable + v * a.D + begin, 0, static_cast<size_t>(width) * sizeof(float));
    for (int64_t r = 0; r < a.rows; ++r) {
      float* to = a.dtable + a.token[r] * a.D + begin;
      const T* from = a.dy + r * a.dy_stride + begin;
      ForLanes(width,
               [&](int64_t i, int n) { Store(to + i, Load(to + i, n) + Load(from + i, n), n); });
    }
  });
}

}  // namespace

TESSERA_KERNEL(Embedding)
TESSERA_KERNEL(EmbeddingGrad)

}  // namespace tessera::TESSERA_ISA
