#include "kernels/rows/embedding.h"

#include "core/parallel.h"
#include "kernels/cpu/simd.h"

namespace tessera::TESSERA_ISA {
namespace {

template <class T>
void Embedding(const EmbeddingArgs<T>& a) {
  ParallelRanges(a.rows(), 64, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t v = a.token.data[r];
      T* to = a.y.Row(r);
      if (v < 0 || v >= a.V) {
        ForLanes(a.D, [&](int64_t i, int n) { Store(to + i, Splat(__builtin_nanf("")), n); });
        continue;
      }
      const float* from = a.table.Row(v);
      ForLanes(a.D, [&](int64_t i, int n) { Store(to + i, Load(from + i, n), n); });
    }
  });
}

// The rows of each of kParts parts of the vocabulary, every kParts-th token one's, in their order.
constexpr int64_t kParts = 16;
struct RowsByPart {
  const int32_t* row;
  int64_t begin[kParts + 1];

  RowsByPart(const int32_t* token, int64_t count, int64_t V) {
    auto* const rows =
        static_cast<int32_t*>(ThreadScratch(count * static_cast<int64_t>(sizeof(int32_t))));
    const auto known = [&](int64_t r) { return token[r] >= 0 && token[r] < V; };
    int64_t next[kParts] = {};
    for (int64_t r = 0; r < count; ++r)
      if (known(r)) ++next[token[r] % kParts];
    begin[0] = 0;
    for (int64_t p = 0; p < kParts; ++p) {
      begin[p + 1] = begin[p] + next[p];
      next[p] = begin[p];
    }
    for (int64_t r = 0; r < count; ++r)
      if (known(r)) rows[next[token[r] % kParts]++] = static_cast<int32_t>(r);
    row = rows;
  }
};

// A chunk owns a stripe of columns of one part of the table, so no two write the same element and
// every sum has the order of the rows.
template <class T>
void EmbeddingGrad(const Gradient<EmbeddingArgs<T>>& g) {
  const EmbeddingArgs<T>& a = g.forward;
  const View<float>& dtable = g.d.table;
  constexpr int64_t kStripe = 256;
  const int64_t stripes = (a.D + kStripe - 1) / kStripe;
  const RowsByPart rows(a.token.data, a.rows(), a.V);
  ParallelFor(stripes * kParts, [&](int64_t chunk) {
    const int64_t part = chunk % kParts, begin = chunk / kParts * kStripe;
    const int64_t width = begin + kStripe < a.D ? kStripe : a.D - begin;
    if (dtable.mode == Grad::kOverwrite)
      for (int64_t v = part; v < a.V; v += kParts)
        __builtin_memset(dtable.Row(v) + begin, 0, static_cast<size_t>(width) * sizeof(float));
    for (int64_t i = rows.begin[part]; i < rows.begin[part + 1]; ++i) {
      const int64_t r = rows.row[i];
      float* to = dtable.Row(a.token.data[r]) + begin;
      const T* from = g.d.y.Row(r) + begin;
      ForLanes(width,
               [&](int64_t j, int n) { Store(to + j, Load(to + j, n) + Load(from + j, n), n); });
    }
  });
}

}  // namespace

TESSERA_KERNEL_WITH_GRAD(Embedding)

}  // namespace tessera::TESSERA_ISA
