#include "kernels/layout/pool.h"

#include "core/parallel.h"
#include "kernels/cpu/rows.h"

namespace tessera::TESSERA_ISA {
namespace {

// What a function is told of a group: its place among all, its first row and its rows.
struct Group {
  int64_t index, first, rows;
};
template <class Body>
void ForGroups(int64_t B, int64_t T, int64_t C, int64_t n, Body&& body) {
  const int64_t groups = GroupsOf(T, n);
  ParallelRanges(B * groups, RowGrain(C * (n < T ? n : T)), [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      const int64_t t = g % groups * n;
      body(Group{g, g / groups * T + t, n < T - t ? n : T - t});
    }
  });
}

template <class T>
Vec SumOfGroup(const View<T>& x, const Group& g, int64_t c, int lanes) {
  Vec sum = Load(x.Row(g.first) + c, lanes);
  for (int64_t r = 1; r < g.rows; ++r) sum += Load(x.Row(g.first + r) + c, lanes);
  return sum;
}

template <class T>
Vec MaxOfGroup(const View<T>& x, const Group& g, int64_t c, int lanes) {
  Vec most = Load(x.Row(g.first) + c, lanes);
  for (int64_t r = 1; r < g.rows; ++r) most = Max(most, Load(x.Row(g.first + r) + c, lanes));
  return most;
}

float Factor(Pooling pooling, int64_t rows) {
  return pooling == Pooling::kMean ? 1 / static_cast<float>(rows) : 1;
}

template <class T>
void Pool(const PoolArgs<T>& a) {
  ForGroups(a.B, a.T, a.C, a.n, [&](const Group& g) {
    ForLanes(a.C, [&](int64_t c, int n) {
      const Vec v = a.pooling == Pooling::kMax
                        ? MaxOfGroup(a.x, g, c, n)
                        : SumOfGroup(a.x, g, c, n) * Factor(a.pooling, g.rows);
      Store(a.y.Row(g.index) + c, v, n);
    });
  });
}

// dx of a group of a maximum: dy where its token is the first that has it.
template <class T>
void MaxGrad(const View<T>& x, const View<T>& dy, const View<T>& dx, const Group& g, int64_t c,
             int lanes) {
  const Vec most = MaxOfGroup(x, g, c, lanes);
  Vec left = Load(dy.Row(g.index) + c, lanes);
  for (int64_t r = 0; r < g.rows; ++r) {
    const auto here = Load(x.Row(g.first + r) + c, lanes) == most;
    PutGrad(dx.Row(g.first + r) + c, here ? left : Vec{}, lanes, dx.mode);
    left = here ? Vec{} : left;
  }
}

template <class T>
void PoolGrad(const Gradient<PoolArgs<T>>& a) {
  const PoolArgs<T>& f = a.forward;
  const View<T>&dx = a.d.x, &dy = a.d.y;
  ForGroups(f.B, f.T, f.C, f.n, [&](const Group& g) {
    ForLanes(f.C, [&](int64_t c, int n) {
      if (f.pooling == Pooling::kMax) return MaxGrad(f.x, dy, dx, g, c, n);
      const Vec v = Load(dy.Row(g.index) + c, n) * Factor(f.pooling, g.rows);
      for (int64_t r = 0; r < g.rows; ++r) PutGrad(dx.Row(g.first + r) + c, v, n, dx.mode);
    });
  });
}

template <class T>
void Repeat(const RepeatArgs<T>& a) {
  ForGroups(a.B, a.T, a.C, a.n, [&](const Group& g) {
    for (int64_t r = 0; r < g.rows; ++r)
      __builtin_memcpy(a.y.Row(g.first + r), a.x.Row(g.index),
                       static_cast<size_t>(a.C) * sizeof(T));
  });
}

template <class T>
void RepeatGrad(const Gradient<RepeatArgs<T>>& a) {
  const RepeatArgs<T>& f = a.forward;
  ForGroups(f.B, f.T, f.C, f.n, [&](const Group& g) {
    ForLanes(f.C, [&](int64_t c, int n) {
      PutGrad(a.d.x.Row(g.index) + c, SumOfGroup(a.d.y, g, c, n), n, a.d.x.mode);
    });
  });
}

}  // namespace

TESSERA_KERNEL_WITH_GRAD(Pool)
TESSERA_KERNEL_WITH_GRAD(Repeat)

}  // namespace tessera::TESSERA_ISA
