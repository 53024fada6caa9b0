#include "kernels/optimiser/muon.h"
#include "kernels/optimiser/tensor_list.cuh"

namespace tessera::TESSERA_DEVICE {
namespace {

// A block of threads works on one block of elements of an array of `size`, each element by one
// thread.
__device__ __forceinline__ int64_t BlockBegin() { return int64_t{blockIdx.x} * kOptimizerBlock; }
__device__ __forceinline__ int64_t BlockEnd(int64_t size) {
  const int64_t end = BlockBegin() + kOptimizerBlock;
  return end < size ? end : size;
}
template <class Kernel, class Args>
void LaunchBlocks(Kernel kernel, int64_t size, const Args& a) {
  if (size > 0)
    Launch(kernel, dim3{static_cast<unsigned>(OptimizerBlocks(size))}, dim3{kThreads}, 0, a);
}

__global__ void __launch_bounds__(kThreads) MomentumKernel(MuonMomentumArgs a) {
  const bool halted = a.outcome->halted != 0;
  const float scale = a.outcome->gradient_scale;
  const bool aligned = Aligned16(a.gradient) && Aligned16(a.momentum) && Aligned16(a.update);
  double sum = 0;
  ForPart(BlockBegin(), BlockEnd(a.size), aligned, [&](int64_t at, auto count) {
    constexpr int N = count.value;
    float g[N], m[N], u[N] = {};
    Load(a.gradient + at, g);
    Load(a.momentum + at, m);
    if (!halted) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        g[i] *= scale;
        m[i] = a.beta * m[i] + g[i];
        u[i] = g[i] + a.beta * m[i];
        sum += static_cast<double>(u[i]) * static_cast<double>(u[i]);
      }
    }
    Store(a.momentum + at, m);
    Store(a.update + at, u);
  });
  sum = BlockSum<kThreads>(sum);
  if (threadIdx.x == 0) a.partial[blockIdx.x] = sum;
}

// Each block adds up the partial sums, one of each block, for itself and in the same order.
__global__ void __launch_bounds__(kThreads) NormaliseKernel(MuonNormaliseArgs a) {
  double sum = 0;
  for (unsigned i = threadIdx.x; i < gridDim.x; i += kThreads) sum += a.partial[i];
  const auto factor = static_cast<float>(1 / (sqrt(BlockSum<kThreads>(sum)) + 1e-7));
  ForPart(BlockBegin(), BlockEnd(a.size), Aligned16(a.update), [&](int64_t at, auto count) {
    float u[count.value];
    Load(a.update + at, u);
#pragma unroll
    for (float& x : u) x *= factor;
    Store(a.update + at, u);
  });
}

__global__ void __launch_bounds__(kThreads) PolynomialKernel(MuonPolynomialArgs a) {
  const int64_t end = BlockEnd(a.n * a.n);
  for (int64_t i = BlockBegin() + threadIdx.x; i < end; i += kThreads)
    a.square[i] = kNewtonSchulzB * a.gram[i] + kNewtonSchulzC * a.square[i] +
                  (i / a.n == i % a.n ? kNewtonSchulzA : 0);
}

__global__ void __launch_bounds__(kThreads) ApplyKernel(MuonApplyArgs a) {
  if (a.outcome->halted != 0) return;
  const float lr = a.step->lr * a.lr_scale;
  const bool aligned = Aligned16(a.parameter) && Aligned16(a.update);
  ForPart(BlockBegin(), BlockEnd(a.size), aligned, [&](int64_t at, auto count) {
    constexpr int N = count.value;
    float p[N], x[N];
    Load(a.parameter + at, p);
    Load(a.update + at, x);
#pragma unroll
    for (int i = 0; i < N; ++i) p[i] -= lr * (a.scale * x[i] + a.weight_decay * p[i]);
    Store(a.parameter + at, p);
  });
}

void MuonMomentum(const MuonMomentumArgs& a) { LaunchBlocks(MomentumKernel, a.size, a); }
void MuonNormalise(const MuonNormaliseArgs& a) { LaunchBlocks(NormaliseKernel, a.size, a); }
void MuonPolynomial(const MuonPolynomialArgs& a) { LaunchBlocks(PolynomialKernel, a.n * a.n, a); }
void MuonApply(const MuonApplyArgs& a) { LaunchBlocks(ApplyKernel, a.size, a); }

}  // namespace

TESSERA_DEVICE_KERNEL_OF(MuonMomentumArgs, MuonMomentum)
TESSERA_DEVICE_KERNEL_OF(MuonNormaliseArgs, MuonNormalise)
TESSERA_DEVICE_KERNEL_OF(MuonPolynomialArgs, MuonPolynomial)
TESSERA_DEVICE_KERNEL_OF(MuonApplyArgs, MuonApply)

}  // namespace tessera::TESSERA_DEVICE
