#ifndef TESSERA_KERNELS_LAYOUT_ROW_SUMS_CUH_
#define TESSERA_KERNELS_LAYOUT_ROW_SUMS_CUH_

#include "kernels/cuda/vector.h"
#include "kernels/layout/gather.h"

// Sums of rows that have the same key, in the order of the rows, so that they have the same bits
// each time: the gradients of a gather and of an embedding. Rows are sorted by key first.

namespace tessera::TESSERA_DEVICE {
namespace {

template <class Y>
struct ZeroBody {
  View<Y> y;
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t c) const {
    const float zero[N] = {};
    Store(y.Row(row) + c, zero);
  }
};

// Keys of `rows` rows a group, each in [0, n) of its group's destinations.
struct Keys {
  const int32_t* key;
  int64_t G, rows, n;
  // The destination of a row of all groups, or G n where its key names none.
  __device__ __forceinline__ int64_t At(int64_t row) const {
    const bool known = key[row] >= 0 && key[row] < n;
    return known ? row / rows * n + key[row] : G * n;
  }
};

// What rows are sorted by.
struct KeyBody {
  Keys keys;
  int32_t* out;
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t) const {
    out[row] = static_cast<int32_t>(keys.At(row));
  }
};

// What becomes of a sum: divided by its rows, whose number is left in `count` where that is not
// null.
struct Mean {
  bool wanted = false;
  float* count = nullptr;
};

constexpr int kSumThreads = 128, kAtOnce = 8;

// Block i sums the rows of the key that stands at place i of the sorted ones, if it is the first of
// its kind there: N columns a thread. Several rows are loaded before they are added, since one
// after another each would wait for memory.
template <int N, class T, class Y>
__global__ void __launch_bounds__(kSumThreads)
    SumSortedRows(View<const T> x, View<Y> y, const int32_t* sorted, const int32_t* rows,
                  int64_t count, int64_t n, int64_t C, Mean mean) {
  const int64_t first = blockIdx.x;
  const int32_t key = sorted[first];
  if (key >= n || (first > 0 && sorted[first - 1] == key)) return;
  float rows_of_key = 1;
  if (mean.wanted) {
    int64_t last = first;
    while (last < count && sorted[last] == key) ++last;
    rows_of_key = static_cast<float>(last - first);
    if (mean.count != nullptr && threadIdx.x == 0) mean.count[key] = rows_of_key;
  }
  for (int64_t c = N * int64_t{threadIdx.x}; c < C; c += N * kSumThreads) {
    float sum[N] = {};
    bool more = true;
    for (int64_t i = first; more; i += kAtOnce) {
      float v[kAtOnce][N];
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        more = more && i + j < count && sorted[i + j] == key;
        if (more) {
          Load(x.Row(rows[i + j]) + c, v[j]);
        } else {
#pragma unroll
          for (float& u : v[j]) u = 0;
        }
      }
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j)
#pragma unroll
        for (int k = 0; k < N; ++k) sum[k] += v[j][k];
    }
    Y* const to = y.Row(key) + c;
#pragma unroll
    for (int k = 0; k < N; ++k)
      to[k] = FromFloat<Y>(ToFloat(to[k]) + (mean.wanted ? sum[k] / rows_of_key : sum[k]));
  }
}

// Row i of y = the sum of the rows of x whose destination it is, or added to it.
template <class T, class Y>
void SumRowsByKey(const View<const T>& x, const Keys& keys, const View<Y>& y, int64_t C,
                  const Mean& mean = {}) {
  const int64_t rows = keys.G * keys.rows, n = keys.G * keys.n;
  if (y.mode == Grad::kOverwrite) ForElements<Y>(n, C, Aligned(y), ZeroBody<Y>{y});
  if (rows == 0) return;
  const int64_t padded = CeilDivide(rows, 64) * 64;
  const auto sort_floats = static_cast<int64_t>(SortBytes(rows) / sizeof(float)) + 1;
  const int64_t floats = 3 * padded + sort_floats, foreseen = RowSumScratch(rows);
  const Scratch scratch(floats > foreseen ? floats : foreseen);
  auto* const sorted = reinterpret_cast<int32_t*>(scratch.floats());
  int32_t *const order = sorted + padded, *const unsorted = order + padded;
  ForElements<float>(rows, 1, false, KeyBody{keys, unsorted});
  SortRows(unsorted, rows, n + 1, sorted, order, unsorted + padded);
  const bool wide = C % kVector<T> == 0 && Aligned(x);
  Launch(wide ? SumSortedRows<kVector<T>, T, Y> : SumSortedRows<1, T, Y>,
         dim3{static_cast<unsigned>(rows)}, dim3{kSumThreads}, 0, x, y, sorted, order, rows, n, C,
         mean);
}

}  // namespace
}  // namespace tessera::TESSERA_DEVICE

#endif  // TESSERA_KERNELS_LAYOUT_ROW_SUMS_CUH_
