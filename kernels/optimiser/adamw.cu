#include "kernels/cuda/reduce.h"
#include "kernels/optimiser/adamw.h"

namespace tessera::TESSERA_DEVICE {
namespace {

constexpr int kThreads = 256;

// Tensors of one launch, by value in its arguments, so that the list needs no memory of the device.
// Block b works on block `b - first_block[i]` of the last tensor i with first_block[i] <= b.
constexpr int kTensors = 48;
struct TensorList {
  AdamWTensor tensor[kTensors];
  int32_t first_block[kTensors];
  int count = 0;
  int64_t blocks = 0;
};

struct Part {
  AdamWTensor tensor;
  int64_t begin, end;
};
__device__ __forceinline__ Part PartOf(const TensorList& list) {
  int i = 0;
  while (i + 1 < list.count && list.first_block[i + 1] <= static_cast<int32_t>(blockIdx.x)) ++i;
  const int64_t begin = (static_cast<int32_t>(blockIdx.x) - list.first_block[i]) * kOptimizerBlock;
  const int64_t end = begin + kOptimizerBlock, size = list.tensor[i].size;
  return {list.tensor[i], begin, end < size ? end : size};
}

// each(element, constant: how many from there on) for this thread's elements of a part: four at a
// time where they can be loaded at once.
template <class Each>
__device__ __forceinline__ void ForPart(const Part& part, bool aligned, Each each) {
  const int64_t fours = aligned ? (part.end - part.begin) / 4 : 0;
  for (int64_t i = threadIdx.x; i < fours; i += kThreads)
    each(part.begin + 4 * i, std::integral_constant<int, 4>{});
  for (int64_t i = part.begin + 4 * fours + threadIdx.x; i < part.end; i += kThreads)
    each(i, std::integral_constant<int, 1>{});
}
__device__ __forceinline__ bool Aligned16(const void* p) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

// Each element is read and written by one thread: 16 bytes read, 12 written, and nothing shared.
__global__ void __launch_bounds__(kThreads) AdamWKernel(TensorList list, AdamWArgs a) {
  if (a.outcome->halted != 0) return;
  const Part part = PartOf(list);
  const AdamWTensor& t = part.tensor;
  const OptimizerStep s = *a.step;
  const float scale = a.outcome->gradient_scale;
  const bool aligned = Aligned16(t.parameter) && Aligned16(t.gradient) &&
                       Aligned16(t.first_moment) && Aligned16(t.second_moment);
  ForPart(part, aligned, [&](int64_t at, auto count) {
    constexpr int N = count.value;
    float p[N], g[N], m[N], v[N];
    Load(t.parameter + at, p);
    Load(t.gradient + at, g);
    Load(t.first_moment + at, m);
    Load(t.second_moment + at, v);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      g[i] *= scale;
      m[i] = a.beta1 * m[i] + (1 - a.beta1) * g[i];
      v[i] = a.beta2 * v[i] + (1 - a.beta2) * (g[i] * g[i]);
      const float step =
          m[i] * s.first_correction / (sqrtf(v[i] * s.second_correction) + a.epsilon);
      p[i] -= s.lr * (step + t.weight_decay * p[i]);
    }
    Store(t.first_moment + at, m);
    Store(t.second_moment + at, v);
    Store(t.parameter + at, p);
  });
}

__global__ void __launch_bounds__(kThreads) SquareSumKernel(TensorList list, double* partial) {
  const Part part = PartOf(list);
  double sum = 0;
  ForPart(part, Aligned16(part.tensor.gradient), [&](int64_t at, auto count) {
    float g[count.value];
    Load(part.tensor.gradient + at, g);
#pragma unroll
    for (const float x : g) sum += static_cast<double>(x) * static_cast<double>(x);
  });
  sum = BlockSum<kThreads>(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// One block: thread t adds partial t, t + 256, ..., then a tree.
__global__ void __launch_bounds__(kThreads) OutcomeKernel(StepOutcomeArgs a) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < a.blocks; i += kThreads) sum += a.partial[i];
  sum = BlockSum<kThreads>(sum);
  if (threadIdx.x != 0) return;
  double loss = 0;
  for (int64_t i = 0; i < a.count; ++i)
    loss += static_cast<double>(a.share[i]) * static_cast<double>(a.loss[i]);
  const double norm = sqrt(sum), clip = a.step->clip;
  a.outcome->loss = loss;
  a.outcome->grad_norm = norm;
  a.outcome->gradient_scale = static_cast<float>(clip > 0 && norm > clip ? clip / norm : 1.0);
  // x - x is 0 for what is finite.
  if (!(loss - loss == 0) || !(norm - norm == 0)) a.outcome->halted = 1;
}

// use(list, blocks before it) for the tensors in lists of at most kTensors.
template <class Use>
void ForLists(const AdamWTensor* tensors, int64_t count, Use&& use) {
  int64_t before = 0;
  for (int64_t first = 0; first < count; first += kTensors) {
    TensorList list;
    for (int64_t i = first; i < count && i < first + kTensors; ++i) {
      list.tensor[list.count] = tensors[i];
      list.first_block[list.count++] = static_cast<int32_t>(list.blocks);
      list.blocks += CeilDivide(tensors[i].size, kOptimizerBlock);
    }
    if (list.blocks > 0) use(list, before);
    before += list.blocks;
  }
}

void AdamW(const AdamWArgs& a) {
  ForLists(a.tensors, a.count, [&](const TensorList& list, int64_t) {
    Launch(AdamWKernel, dim3{static_cast<unsigned>(list.blocks)}, dim3{kThreads}, 0, list, a);
  });
}
void SquareSum(const SquareSumArgs& a) {
  ForLists(a.tensors, a.count, [&](const TensorList& list, int64_t before) {
    Launch(SquareSumKernel, dim3{static_cast<unsigned>(list.blocks)}, dim3{kThreads}, 0, list,
           a.partial + before);
  });
}

void FindOutcome(const StepOutcomeArgs& a) { Launch(OutcomeKernel, dim3{1}, dim3{kThreads}, 0, a); }

}  // namespace

TESSERA_DEVICE_KERNEL_OF(StepOutcomeArgs, FindOutcome)
TESSERA_DEVICE_KERNEL_OF(AdamWArgs, AdamW)
TESSERA_DEVICE_KERNEL_OF(SquareSumArgs, SquareSum)

}  // namespace tessera::TESSERA_DEVICE
