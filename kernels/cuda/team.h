#ifndef TESSERA_KERNELS_CUDA_TEAM_H_
#define TESSERA_KERNELS_CUDA_TEAM_H_

#include "kernels/cuda/reduce.h"

// Teams of threads, each of which has one item of work, a run of columns: a warp, eight of which
// make a block, or a whole block where the run is long. Every thread of a team comes to every
// reduction, and a team without an item leaves as one.

namespace tessera::TESSERA_DEVICE {
namespace {

constexpr int kTeamBlock = 256;

template <int kTeam>
struct Team {
  static_assert(kTeam == 32 || kTeam == kTeamBlock);
  static __device__ __forceinline__ int64_t Item() {
    return int64_t{blockIdx.x} * (kTeamBlock / kTeam) + threadIdx.x / kTeam;
  }
  static __device__ __forceinline__ int Rank() { return static_cast<int>(threadIdx.x) % kTeam; }
  static __device__ __forceinline__ float Sum(float v) {
    return kTeam == 32 ? WarpSum(v) : BlockSum<kTeamBlock>(v);
  }
  static __device__ __forceinline__ float Max(float v) {
    return kTeam == 32 ? WarpMax(v) : BlockMax<kTeamBlock>(v);
  }
  static __device__ __forceinline__ int64_t Min(int64_t v) {
    const auto in_warp = [](int64_t x) {
#pragma unroll
      for (int lane = 16; lane > 0; lane /= 2) {
        const int64_t other = __shfl_xor_sync(kAllLanes, x, lane);
        if (other < x) x = other;
      }
      return x;
    };
    return kTeam == 32 ? in_warp(v) : BlockReduce<kTeamBlock>(v, INT64_MAX, in_warp);
  }
  // body(column) for every N-th column of [begin, end), begin a multiple of N.
  template <int N, class Body>
  static __device__ __forceinline__ void ForColumns(int64_t begin, int64_t end, Body body) {
    for (int64_t c = begin + N * Rank(); c < end; c += N * kTeam) body(c);
  }
};

template <int kTeam, int N, class Body>
__global__ void __launch_bounds__(kTeamBlock) EachItem(int64_t items, Body body) {
  if (Team<kTeam>::Item() < items) body.template Do<kTeam, N>(Team<kTeam>::Item());
}

// body.Do<kTeam, N>(item) by a team for each of so many runs of `columns` columns, which are read N
// at a time: kVector<T> where they are `aligned`, else one.
template <class T, class Body>
void ForItems(int64_t items, int64_t columns, bool aligned, const Body& body) {
  if (items == 0 || columns == 0) return;
  const bool wide = aligned && columns % kVector<T> == 0, long_run = columns > 2048;
  const dim3 grid{static_cast<unsigned>(long_run ? items : CeilDivide(items, kTeamBlock / 32))};
  const auto launch = [&](auto kernel) { Launch(kernel, grid, dim3{kTeamBlock}, 0, items, body); };
  if (long_run)
    wide ? launch(EachItem<kTeamBlock, kVector<T>, Body>) : launch(EachItem<kTeamBlock, 1, Body>);
  else
    wide ? launch(EachItem<32, kVector<T>, Body>) : launch(EachItem<32, 1, Body>);
}

}  // namespace
}  // namespace tessera::TESSERA_DEVICE

#endif  // TESSERA_KERNELS_CUDA_TEAM_H_
