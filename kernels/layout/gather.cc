#include "kernels/layout/gather.h"

#include "core/parallel.h"
#include "kernels/cpu/rows.h"

namespace tessera::TESSERA_ISA {
namespace {

// What both ops say of their rows.
struct Map {
  const int32_t* index;
  int64_t G, rows, n, C;
  // Among the rows of all groups, the one that row r of all names; -1: none.
  int64_t At(int64_t r) const {
    return index[r] >= 0 && index[r] < n ? r / rows * n + index[r] : -1;
  }
};
template <class Args>
Map MapOf(const Args& a) {
  return {a.index.data, a.G, a.rows, a.n, a.C};
}

// to[r] = from[m.At(r)], or added to it; divided by the row's count where there are counts.
template <class T>
void TakeRows(const View<T>& from, const Map& m, const View<T>& to, const float* count = nullptr) {
  const int64_t C = m.C;
  ParallelRanges(m.G * m.rows, RowGrain(C), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t at = m.At(r);
      const bool known = at >= 0;
      T* y = to.Row(r);
      if (known && count != nullptr) {
        const T* x = from.Row(at);
        ForLanes(C,
                 [&](int64_t c, int k) { PutGrad(y + c, Load(x + c, k) / count[at], k, to.mode); });
      } else if (known && to.mode == Grad::kOverwrite) {
        __builtin_memcpy(y, from.Row(at), static_cast<size_t>(C) * sizeof(T));
      } else if (known) {
        const T* x = from.Row(at);
        ForLanes(C, [&](int64_t c, int k) { Store(y + c, Load(y + c, k) + Load(x + c, k), k); });
      } else if (to.mode == Grad::kOverwrite) {
        __builtin_memset(y, 0, static_cast<size_t>(C) * sizeof(T));
      }
    }
  });
}

// The rows of each destination, in their order: those of i are row[begin[i]] .. row[begin[i+1]].
struct RowsByDestination {
  int32_t *begin, *row;
  explicit RowsByDestination(const Map& m) {
    const int64_t n = m.G * m.n, rows = m.G * m.rows;
    begin = static_cast<int32_t*>(ThreadScratch((n + 2 + rows) * 4));
    row = begin + n + 2;
    // Counts stand two places late, so that filling moves each begin to where the next one is.
    for (int64_t i = 0; i < n + 2; ++i) begin[i] = 0;
    for (int64_t r = 0; r < rows; ++r)
      if (const int64_t at = m.At(r); at >= 0) ++begin[at + 2];
    for (int64_t i = 0; i < n; ++i) begin[i + 2] += begin[i + 1];
    for (int64_t r = 0; r < rows; ++r)
      if (const int64_t at = m.At(r); at >= 0) row[begin[at + 1]++] = static_cast<int32_t>(r);
  }
};

// What becomes of a sum: divided by its rows, whose number is left in `count` where that is not
// null.
struct Mean {
  bool wanted = false;
  float* count = nullptr;
};

// to[i] = the sum of from[r] over the rows of i, or added to it.
template <class T>
void SumRows(const View<T>& from, const Map& m, const View<T>& to, const Mean& mean = {}) {
  const RowsByDestination by(m);
  ParallelRanges(m.G * m.n, RowGrain(m.C), [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t begin = by.begin[i], end = by.begin[i + 1];
      if (begin == end && to.mode == Grad::kAccumulate) continue;
      const auto rows = static_cast<float>(end - begin);
      if (mean.count != nullptr) mean.count[i] = rows;
      ForLanes(m.C, [&](int64_t c, int k) {
        Vec sum{};
        for (int64_t j = begin; j < end; ++j) sum += Load(from.Row(by.row[j]) + c, k);
        if (mean.wanted && begin < end) sum = sum / rows;
        PutGrad(to.Row(i) + c, sum, k, to.mode);
      });
    }
  });
}

template <class T>
void Gather(const GatherArgs<T>& a) {
  TakeRows(a.x, MapOf(a), a.y);
}
template <class T>
void GatherGrad(const Gradient<GatherArgs<T>>& a) {
  SumRows(a.d.y, MapOf(a.forward), a.d.x);
}
template <class T>
void Scatter(const ScatterArgs<T>& a) {
  SumRows(a.x, MapOf(a), a.y, {a.to == ScatterTo::kMean, a.count.data});
}
template <class T>
void ScatterGrad(const Gradient<ScatterArgs<T>>& a) {
  TakeRows(a.d.y, MapOf(a.forward), a.d.x, a.forward.count.data);
}

}  // namespace

TESSERA_KERNEL_WITH_GRAD(Gather)
TESSERA_KERNEL_WITH_GRAD(Scatter)

}  // namespace tessera::TESSERA_ISA
