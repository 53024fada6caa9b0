#include "kernels/cuda/grid.h"
#include "kernels/cuda/team.h"
#include "kernels/rows/broadcast.h"

// Every element is read once and written once. Where a value serves a group of columns, a team adds
// up its gradient over the group; where it serves all rows, blocks of rows are added up, and then
// the blocks.

namespace tessera::TESSERA_DEVICE {
namespace {

// The values of columns [c, c + N).
template <int N, class Args>
__device__ __forceinline__ void LoadValues(const Args& a, int64_t row, int64_t c, float (&v)[N]) {
  const auto* const values = a.v.Row(a.v_row(row));
  const auto W = static_cast<uint32_t>(a.W), column = static_cast<uint32_t>(c);
  uint32_t group = W == 1 ? column : column / W, within = column - group * W;
#pragma unroll
  for (float& value : v) {
    value = ToFloat(values[group]);
    if (++within == W) within = 0, ++group;
  }
}

template <class Args>
struct BroadcastBody {
  Args a;
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t c) const {
    float x[N], v[N];
    Load(a.x.Row(row) + c, x);
    LoadValues(a, row, c, v);
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = a.how == Broadcasting::kMultiply ? x[i] * v[i] : x[i] + v[i];
    Store(a.y.Row(row) + c, x);
  }
};

// The gradient of x, and that of v where every element has a value of its own.
template <class Args>
struct ElementGradBody {
  Gradient<Args> g;
  template <int N>
  __device__ __forceinline__ void At(int64_t row, int64_t c) const {
    const Args& a = g.forward;
    const bool multiply = a.how == Broadcasting::kMultiply;
    float dy[N], v[N];
    Load(g.d.y.Row(row) + c, dy);
    if (g.d.v) {
      if (multiply) Load(a.x.Row(row) + c, v);
#pragma unroll
      for (int i = 0; i < N; ++i)
        PutGrad(g.d.v.Row(row) + c + i, multiply ? dy[i] * v[i] : dy[i], g.d.v.mode);
    }
    if (!g.d.x) return;
    if (multiply) LoadValues(a, row, c, v);
#pragma unroll
    for (int i = 0; i < N; ++i) dy[i] *= multiply ? v[i] : 1;
    PutGrad(g.d.x.Row(row) + c, dy, g.d.x.mode);
  }
};

// A team has a group of a row: the gradients of its columns of x, and of its value, which goes to
// `sums` [rows,G] where rows share it.
template <class Args>
struct GroupGradBody {
  Gradient<Args> g;
  float* sums;
  template <int kTeam, int N>
  __device__ __forceinline__ void Do(int64_t item) const {
    const Args& a = g.forward;
    const bool multiply = a.how == Broadcasting::kMultiply;
    const int64_t row = item / a.G, group = item % a.G, column = group * a.W;
    const float value = multiply ? ToFloat(a.v.Row(a.v_row(row))[group]) : 1;
    float sum = 0;
    Team<kTeam>::template ForColumns<N>(0, a.W, [&](int64_t c) {
      float dy[N], x[N];
      Load(g.d.y.Row(row) + column + c, dy);
      if (multiply) Load(a.x.Row(row) + column + c, x);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        sum += multiply ? dy[i] * x[i] : dy[i];
        dy[i] *= value;
      }
      if (g.d.x) PutGrad(g.d.x.Row(row) + column + c, dy, g.d.x.mode);
    });
    sum = Team<kTeam>::Sum(sum);
    if (Team<kTeam>::Rank() > 0) return;
    if (sums != nullptr)
      sums[item] = sum;
    else
      PutGrad(g.d.v.Row(row) + group, sum, g.d.v.mode);
  }
};

// Block (i, p): thread c has column 256 i + c of the p-th kCudaRows rows, in order. Of groups of
// one column it computes both gradients; else it adds up `sums`.
template <class Args>
__global__ void __launch_bounds__(256)
    RowBlockKernel(Gradient<Args> g, const float* sums, float* partial) {
  const Args& a = g.forward;
  const bool multiply = a.how == Broadcasting::kMultiply;
  const GridPlace place =
      PlaceInGrid((a.G + 255) / 256, (a.rows() + Args::kCudaRows - 1) / Args::kCudaRows);
  const int64_t c = place.x * 256 + threadIdx.x, begin = place.y * Args::kCudaRows;
  if (c >= a.G) return;
  const float v = multiply ? ToFloat(a.v.data[c]) : 1;
  float sum = 0;
  for (int64_t r = begin; r < begin + Args::kCudaRows && r < a.rows(); ++r) {
    if (sums != nullptr) {
      sum += sums[r * a.G + c];
      continue;
    }
    const float dy = ToFloat(g.d.y.Row(r)[c]);
    sum += multiply ? dy * ToFloat(a.x.Row(r)[c]) : dy;
    if (g.d.x) PutGrad(g.d.x.Row(r) + c, dy * v, g.d.x.mode);
  }
  partial[place.y * a.G + c] = sum;
}

template <class T, class V>
void Broadcast(const BroadcastArgs<T, V>& a) {
  ForElements<T>(a.rows(), a.G * a.W, Aligned(a.x) && Aligned(a.y),
                 BroadcastBody<BroadcastArgs<T, V>>{a});
}

// The sums over rows of what they share.
template <class T>
void SharedGrad(const Gradient<BroadcastArgs<T, float>>& g, bool aligned) {
  using Args = BroadcastArgs<T, float>;
  const Args& a = g.forward;
  const Scratch scratch(a.GradCudaScratch());
  float* const partial = scratch.floats();
  float* const sums = a.W > 1 ? partial + a.cuda_blocks() * a.G : nullptr;
  if (sums != nullptr) ForItems<T>(a.rows() * a.G, a.W, aligned, GroupGradBody<Args>{g, sums});
  Launch(RowBlockKernel<Args>, FoldedGrid(CeilDivide(a.G, 256), a.cuda_blocks(), 1), dim3{256}, 0,
         g, sums, partial);
  LaunchSumParts(partial, a.cuda_blocks(), a.G, a.G, g.d.v.data, g.d.v.mode);
}

template <class T, class V>
void BroadcastGrad(const Gradient<BroadcastArgs<T, V>>& g) {
  using Args = BroadcastArgs<T, V>;
  const Args& a = g.forward;
  if (a.rows() == 0 || a.G * a.W == 0) return;
  const bool aligned = Aligned(a.x) && Aligned(g.d.x) && Aligned(g.d.y);
  if constexpr (std::is_same_v<V, float>)
    if (g.d.v && a.shared()) return SharedGrad(g, aligned);
  if (!g.d.v || a.W == 1)
    return ForElements<T>(a.rows(), a.G * a.W, aligned, ElementGradBody<Args>{g});
  ForItems<T>(a.rows() * a.G, a.W, aligned, GroupGradBody<Args>{g, nullptr});
}

template <class T, class V>
struct Entries {
  using Args = BroadcastArgs<T, V>;
  KernelEntry values{KernelOf<Args, Broadcast<T, V>>{}};
  KernelEntry gradients{KernelOf<Gradient<Args>, BroadcastGrad<T, V>>{}};
};
const Entries<float, float> kFF;
const Entries<bf16, float> kBF;
const Entries<bf16, bf16> kBB;

}  // namespace

}  // namespace tessera::TESSERA_DEVICE
