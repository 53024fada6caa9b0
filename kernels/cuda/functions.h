#ifndef TESSERA_KERNELS_CUDA_FUNCTIONS_H_
#define TESSERA_KERNELS_CUDA_FUNCTIONS_H_

#include "kernels/cuda/device.h"
#include "kernels/pointwise/activation.h"

// The functions of kernels/pointwise/activation.h and their slopes. Which one is the same for a
// whole launch, so the branches cost no divergence, and memory is what these kernels wait for.

namespace tessera::TESSERA_DEVICE {
namespace {

__device__ __forceinline__ float Sigmoid(float x) { return 1 / (1 + expf(-x)); }
__device__ __forceinline__ float Silu(float x) { return x * Sigmoid(x); }
__device__ __forceinline__ float SiluSlope(float x) { return Sigmoid(x) * (1 + x * Sigmoid(-x)); }
// log(1 + exp(x))
__device__ __forceinline__ float Softplus(float x) { return fmaxf(x, 0) + log1pf(expf(-fabsf(x))); }
// The normal distribution at x.
__device__ __forceinline__ float NormalCdf(float x) { return 0.5f * erfcf(-0.707106781f * x); }
__device__ __forceinline__ float NormalDensity(float x) {
  return 0.398942280f * expf(-0.5f * x * x);
}

__device__ __forceinline__ float ValueOf(Activation f, float x) {
  switch (f) {
    case Activation::kIdentity:
      return x;
    case Activation::kGelu:
      return x * NormalCdf(x);
    case Activation::kSilu:
      return Silu(x);
    case Activation::kRelu2:
      return x > 0 ? x * x : 0;
    case Activation::kSigmoid:
      return Sigmoid(x);
    case Activation::kLogSigmoid:
      return -Softplus(-x);
    case Activation::kSoftplus:
      return Softplus(x);
    case Activation::kTanh:
      return tanhf(x);
    case Activation::kExp:
      return expf(x);
    case Activation::kLog:
      return logf(x);
  }
  return x;
}

struct Tangent {
  float value, slope;
};
__device__ __forceinline__ Tangent TangentOf(Activation f, float x) {
  switch (f) {
    case Activation::kIdentity:
      return {x, 1};
    case Activation::kGelu: {
      const float cdf = NormalCdf(x);
      return {x * cdf, cdf + x * NormalDensity(x)};
    }
    case Activation::kSilu:
      return {Silu(x), SiluSlope(x)};
    case Activation::kRelu2:
      return {x > 0 ? x * x : 0, x > 0 ? 2 * x : 0};
    case Activation::kSigmoid:
      return {Sigmoid(x), Sigmoid(x) * Sigmoid(-x)};
    case Activation::kLogSigmoid:
      return {-Softplus(-x), Sigmoid(-x)};
    case Activation::kSoftplus:
      return {Softplus(x), Sigmoid(x)};
    case Activation::kTanh: {
      const float e = expf(-2 * fabsf(x));  // 1 - tanh^2 would cancel
      return {tanhf(x), 4 * e / ((1 + e) * (1 + e))};
    }
    case Activation::kExp: {
      const float e = expf(x);
      return {e, e};
    }
    case Activation::kLog:
      return {logf(x), 1 / x};
  }
  return {x, 1};
}

}  // namespace
}  // namespace tessera::TESSERA_DEVICE

#endif  // TESSERA_KERNELS_CUDA_FUNCTIONS_H_
