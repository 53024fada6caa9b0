#include "kernels/cuda/reduce.h"
#include "kernels/layout/choose.h"

namespace tessera::TESSERA_DEVICE {
namespace {

constexpr int kThreads = 128;

// The sum of `own` over the threads before this one. Two barriers: `parts` is written by all before
// any reads it, and read by all before the next call writes it.
__device__ __forceinline__ int SumBefore(int own) {
  TESSERA_SHARED(int[kThreads], parts);
  parts[threadIdx.x] = own;
  __syncthreads();
  int sum = 0;
  for (int i = 0; i < static_cast<int>(threadIdx.x); ++i) sum += parts[i];
  __syncthreads();
  return sum;
}

// In `kept` the groups that are kept, as they stand: a thread a group. Barriers: all sums are there
// before they are compared, all ranks before they are counted, and the groups before they are read.
template <class Score>
__device__ __forceinline__ void BestGroups(int groups, int64_t size, int64_t count, Score score,
                                           int32_t* kept) {
  TESSERA_SHARED(uint32_t[kThreads], sums);
  TESSERA_SHARED(int32_t[kThreads], chosen);
  const int g = static_cast<int>(threadIdx.x);
  if (g < groups) {
    TwoBest best;
    for (int64_t i = g * size; i < (g + 1) * size; ++i) best.Add(score(i));
    sums[g] = OrderOf(__float_as_uint(best.Sum()));
  }
  __syncthreads();
  if (g < groups) {
    int rank = 0;
    for (int i = 0; i < groups; ++i) rank += sums[i] > sums[g] || (sums[i] == sums[g] && i < g);
    chosen[g] = rank < count ? 1 : 0;
  }
  __syncthreads();
  if (g < groups && chosen[g] != 0) {
    int at = 0;
    for (int i = 0; i < g; ++i) at += chosen[i];
    kept[at] = g;
  }
  __syncthreads();
}

// Block i has item i: the scores of one (o, c), of which a thread has a range of neighbours. The
// threshold is found a bit at a time by counting; scores stay where they are and are read again,
// from cache. By place, a thread then knows where its choices go. By score, the places go through
// shared memory, so that each can be ranked among all: one barrier between writing and reading
// them.
template <class T>
__global__ void __launch_bounds__(kThreads) ChooseKernel(ChooseArgs<T> a) {
  TESSERA_DYNAMIC_SHARED(int32_t, places);
  const int64_t item = blockIdx.x, step = a.Step(a.x.stride);
  const T* x = a.x.data + a.First(item / a.inner, item % a.inner);
  TESSERA_SHARED(int32_t[kThreads], group);
  const int64_t n = a.candidates(), size = a.group_size();
  const auto score = [&](int64_t i) {
    return ToFloat(x[i * step]) + (a.bias ? a.bias.data[i] : 0);
  };
  if (a.groups > 1) BestGroups(static_cast<int>(a.groups), size, a.kept_groups, score, group);
  // Candidates are counted through the groups that are kept.
  const auto place_of = [&](int64_t i) {
    return a.groups > 1 ? group[i / size] * size + i % size : i;
  };
  const auto key = [&](int64_t i) { return OrderOf(__float_as_uint(score(place_of(i)))); };
  const int64_t own = (n + kThreads - 1) / kThreads, begin = own * threadIdx.x;
  const int64_t end = begin + own < n ? begin + own : n;
  uint32_t least = 0;
  for (int bit = 31; bit >= 0; --bit) {
    const uint32_t next = least | (uint32_t{1} << bit);
    int count = 0;
    for (int64_t i = begin; i < end; ++i) count += key(i) >= next ? 1 : 0;
    if (BlockSum<kThreads>(count) >= a.k) least = next;
  }
  int above = 0, equal = 0;
  for (int64_t i = begin; i < end; ++i) {
    above += key(i) > least ? 1 : 0;
    equal += key(i) == least ? 1 : 0;
  }
  const int ties = static_cast<int>(a.k) - BlockSum<kThreads>(above), before = SumBefore(equal);
  int left = ties - before < 0 ? 0 : ties - before;  // of the equal ones, this thread's
  left = left < equal ? left : equal;
  int64_t at = SumBefore(above + left);
  const bool by_score = a.order == ChooseOrder::kByScore;
  for (int64_t i = begin; i < end; ++i) {
    const uint32_t k = key(i);
    if (k < least || (k == least && left-- <= 0)) continue;
    if (by_score) {
      places[at++] = static_cast<int32_t>(i);
    } else {
      a.index.data[item * a.k + at] = static_cast<int32_t>(place_of(i));
      a.value.data[item * a.k + at++] = x[place_of(i) * step];
    }
  }
  if (!by_score) return;
  __syncthreads();
  for (int64_t j = threadIdx.x; j < a.k; j += kThreads) {
    const uint32_t mine = key(places[j]);
    int64_t rank = 0;
    for (int64_t i = 0; i < a.k; ++i) {
      const uint32_t other = key(places[i]);
      rank += other > mine || (other == mine && i < j) ? 1 : 0;
    }
    a.index.data[item * a.k + rank] = static_cast<int32_t>(place_of(places[j]));
    a.value.data[item * a.k + rank] = x[place_of(places[j]) * step];
  }
}

// Block i has item i. Zeros come before the choices of other threads: one barrier.
template <class T>
__global__ void __launch_bounds__(kThreads) ChooseGradKernel(Gradient<ChooseArgs<T>> a) {
  const ChooseArgs<T>& f = a.forward;
  ChooseArgs<T> to = f;
  to.x = a.d.x;
  const int64_t item = blockIdx.x, step = to.Step(to.x.stride);
  T* dx = to.x.data + to.First(item / f.inner, item % f.inner);
  if (to.x.mode == Grad::kOverwrite)
    for (int64_t i = threadIdx.x; i < f.N; i += kThreads) dx[i * step] = FromFloat<T>(0);
  __syncthreads();
  for (int64_t j = threadIdx.x; j < f.k; j += kThreads) {
    T& d = dx[f.index.data[item * f.k + j] * step];
    d = FromFloat<T>(ToFloat(d) + ToFloat(a.d.value.data[item * f.k + j]));
  }
}

template <class T>
void Choose(const ChooseArgs<T>& a) {
  const bool by_score = a.order == ChooseOrder::kByScore;
  Launch(ChooseKernel<T>, dim3{static_cast<unsigned>(a.outer * a.inner)}, dim3{kThreads},
         by_score ? a.k * 4 : 0, a);
}
template <class T>
void ChooseGrad(const Gradient<ChooseArgs<T>>& a) {
  Launch(ChooseGradKernel<T>, dim3{static_cast<unsigned>(a.forward.outer * a.forward.inner)},
         dim3{kThreads}, 0, a);
}

}  // namespace

TESSERA_DEVICE_KERNEL_WITH_GRAD(Choose)

}  // namespace tessera::TESSERA_DEVICE
