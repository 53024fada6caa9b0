#include "kernels/rows/broadcast.h"

#include "core/parallel.h"
#include "kernels/cpu/rows.h"

namespace tessera::TESSERA_ISA {
namespace {

template <class Args>
void Broadcast(const Args& a) {
  const bool multiply = a.how == Broadcasting::kMultiply;
  const auto combine = [multiply](Vec x, Vec v) { return multiply ? x * v : x + v; };
  ParallelRanges(a.rows(), RowGrain(a.G * a.W), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const auto* const v = a.v.Row(a.v_row(row));
      const auto* x = a.x.Row(row);
      auto* y = a.y.Row(row);
      if (a.W == 1) {
        ForLanes(a.G, [&](int64_t i, int n) {
          Store(y + i, combine(Load(x + i, n), Load(v + i, n)), n);
        });
        continue;
      }
      for (int64_t g = 0; g < a.G; ++g, x += a.W, y += a.W) {
        const Vec s = Splat(static_cast<float>(v[g]));
        ForLanes(a.W, [&](int64_t i, int n) { Store(y + i, combine(Load(x + i, n), s), n); });
      }
    }
  });
}

// A row's gradient of x, and dot(first group, groups at once, <dy, x> of each, or the sums of dy)
// for that of v.
template <class Args, class Dot>
void RowGrad(const Gradient<Args>& g, int64_t row, Dot&& dot) {
  const Args& a = g.forward;
  const bool multiply = a.how == Broadcasting::kMultiply;
  const auto* const v = a.v.Row(a.v_row(row));
  const auto* x = a.x.Row(row);
  const auto* dy = g.d.y.Row(row);
  auto* dx = g.d.x.Row(row);
  const bool dx_wanted = static_cast<bool>(g.d.x), read = multiply && g.d.v;
  // Of a vector of columns, which have these values of v.
  const auto each = [&](int64_t i, int n, auto value) {
    const Vec d = Load(dy + i, n);
    if (dx_wanted) PutGrad(dx + i, multiply ? d * value() : d, n, g.d.x.mode);
    return read ? d * Load(x + i, n) : d;
  };
  if (a.W == 1) {
    ForLanes(a.G, [&](int64_t i, int n) { dot(i, n, each(i, n, [&] { return Load(v + i, n); })); });
    return;
  }
  for (int64_t group = 0; group < a.G; ++group, x += a.W, dy += a.W, dx += a.W) {
    const Vec s = multiply ? Splat(static_cast<float>(v[group])) : Vec{};
    const float sum = SumOver(a.W, [&](int64_t i, int n) { return each(i, n, [&] { return s; }); });
    dot(group, 1, Splat(sum));
  }
}

// Each block of rows has a row of sums, in scratch memory of the calling thread.
template <class Args>
void SharedGrad(const Gradient<Args>& g) {
  const Args& a = g.forward;
  const int64_t rows = a.block_rows();
  auto* const partial = static_cast<float*>(ThreadScratch(a.blocks() * a.G * 4 + 64, 3));
  ParallelFor(a.blocks(), [&](int64_t block) {
    float* const sums = partial + block * a.G;
    const int64_t end = (block + 1) * rows < a.rows() ? (block + 1) * rows : a.rows();
    __builtin_memset(sums, 0, static_cast<size_t>(a.G) * 4);
    for (int64_t row = block * rows; row < end; ++row)
      RowGrad(g, row, [&](int64_t i, int n, Vec v) { Store(sums + i, Load(sums + i, n) + v, n); });
  });
  ParallelRanges(a.G, 1024, [&](int64_t begin, int64_t end) {
    ForLanes(end - begin, [&](int64_t i, int n) {
      Vec sum{};
      for (int64_t b = 0; b < a.blocks(); ++b) sum += Load(partial + b * a.G + begin + i, n);
      PutGrad(g.d.v.data + begin + i, sum, n, g.d.v.mode);
    });
  });
}

template <class Args>
void BroadcastGrad(const Gradient<Args>& g) {
  const Args& a = g.forward;
  if (a.shared() && g.d.v) return SharedGrad(g);
  ParallelRanges(a.rows(), RowGrain(a.G * a.W), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      RowGrad(g, row, [&](int64_t i, int n, Vec v) {
        if (g.d.v) PutGrad(g.d.v.Row(row) + i, v, n, g.d.v.mode);
      });
  });
}

}  // namespace

// TESSERA_BROADCAST(T, V): activations and values of these types.
#define TESSERA_BROADCAST(...)                                 \
  template <>                                                  \
  void Run(const BroadcastArgs<__VA_ARGS__>& args) {           \
    Broadcast(args);                                           \
  }                                                            \
  template <>                                                  \
  void Run(const Gradient<BroadcastArgs<__VA_ARGS__>>& args) { \
    BroadcastGrad(args);                                       \
  }
TESSERA_BROADCAST(float, float)
TESSERA_BROADCAST(bf16, float)
TESSERA_BROADCAST(bf16, bf16)
#undef TESSERA_BROADCAST

}  // namespace tessera::TESSERA_ISA
