#ifndef TESSERA_KERNELS_LAYOUT_GATHER_H_
#define TESSERA_KERNELS_LAYOUT_GATHER_H_

#include "core/dtype.h"
#include "kernels/view.h"

// Rows taken from anywhere and put anywhere: what routers over tokens, memories, buckets and
// patches are made of. An index outside [0, n) names no row: what it would take is zero, what it
// would give goes nowhere. Sums have the order of the rows, so the same bits each time.

namespace tessera {

// What CUDA kernels that sum rows by key ask for, in floats: rows and keys in the order of the
// keys, and what sorting takes.
constexpr int64_t RowSumScratch(int64_t rows) { return 7 * rows + (1 << 20); }

// y[g,r] = x[g,index[g,r]].
template <class T_>
struct GatherArgs {
  static constexpr char kName[] = "gather", kGradName[] = "gather_grad";
  View<T_> x;                 // [G,n,C]
  View<const int32_t> index;  // [G,rows]
  View<T_> y;                 // [G,rows,C]
  int64_t G, rows, n, C;
  template <class F>
  void Tensors(F&& f) {
    f.In("x", x, {G, n, C}, kUnread);
    f.Index("index", index, {G, rows});
    f.Out("y", y, {G, rows, C});
  }
  Cost cost() const { return {.bytes = G * rows * (2 * C * int64_t{sizeof(T_)} + 4)}; }
  Cost grad_cost() const {
    return {.flops = G * rows * C, .bytes = G * ((rows + n) * C * int64_t{sizeof(T_)} + rows * 4)};
  }
  int64_t GradCudaScratch() const { return RowSumScratch(G * rows); }
};

enum class ScatterTo : uint8_t { kSum, kMean };

// y[g,i] = the sum, or the mean, of x[g,r] over the rows r with index[g,r] = i: the rows of a
// segment, which may be of any number and stand anywhere. Zero where there is none.
template <class T_>
struct ScatterArgs {
  static constexpr char kName[] = "scatter", kGradName[] = "scatter_grad";
  View<T_> x;                 // [G,rows,C]
  View<const int32_t> index;  // [G,rows]
  View<T_> y;                 // [G,n,C]
  View<float> count;          // [G,n], of a mean: the rows of a segment that has any
  int64_t G, rows, n, C;
  ScatterTo to = ScatterTo::kSum;
  template <class F>
  void Tensors(F&& f) {
    f.In("x", x, {G, rows, C}, kUnread);
    f.Index("index", index, {G, rows});
    f.Out("y", y, {G, n, C});
    f.Kept("count", count, {G, mean() * n});
  }
  constexpr int64_t mean() const { return to == ScatterTo::kMean ? 1 : 0; }
  Cost cost() const {
    return {.flops = G * (rows + mean() * n) * C,
            .bytes = G * ((rows + n) * C * int64_t{sizeof(T_)} + rows * 4)};
  }
  Cost grad_cost() const {
    return {.flops = mean() * G * rows * C, .bytes = G * rows * (2 * C * int64_t{sizeof(T_)} + 4)};
  }
  int64_t CudaScratch() const { return RowSumScratch(G * rows); }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_LAYOUT_GATHER_H_
