#ifndef TESSERA_KERNELS_CUDA_FUNCTIONS_H_
#define TESSERA_KERNELS_CUDA_FUNCTIONS_H_

#include "kernels/cuda/device.h"
#include "kernels/pointwise/activation.h"

// The functions of kernels/pointwise/functions.h. Which one is the same for a whole launch, so the
// branches cost no divergence, and memory is what these kernels wait for.

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

// Large arguments need a table in local memory: calls keep it out of the other functions' way.
__device__ inline __attribute__((noinline)) float SinCall(float x) { return sinf(x); }
__device__ inline __attribute__((noinline)) float CosCall(float x) { return cosf(x); }

struct Tangent {
  float value, slope;
};
struct NormalAt {
  float cdf, density;
};

struct Math {
  using X = float;
  using Tangent = TESSERA_DEVICE::Tangent;
  static __device__ __forceinline__ float Splat(float x) { return x; }
  static __device__ __forceinline__ float Max(float x, float y) { return fmaxf(x, y); }
  static __device__ __forceinline__ float Abs(float x) { return fabsf(x); }
  static __device__ __forceinline__ float Sqrt(float x) { return sqrtf(x); }
  static __device__ __forceinline__ float Exp(float x) { return expf(x); }
  static __device__ __forceinline__ float Log(float x) { return logf(x); }
  static __device__ __forceinline__ float Sin(float x) { return SinCall(x); }
  static __device__ __forceinline__ float Cos(float x) { return CosCall(x); }
  static __device__ __forceinline__ float Tanh(float x) { return tanhf(x); }
  static __device__ __forceinline__ float TanhSlope(float, float x) {
    const float e = expf(-2 * fabsf(x));  // 1 - tanh^2 would cancel
    return 4 * e / ((1 + e) * (1 + e));
  }
  static __device__ __forceinline__ float Sigmoid(float x) { return TESSERA_DEVICE::Sigmoid(x); }
  static __device__ __forceinline__ float OneMinusSigmoid(float, float x) {
    return TESSERA_DEVICE::Sigmoid(-x);
  }
  static __device__ __forceinline__ float Softplus(float x) { return TESSERA_DEVICE::Softplus(x); }
  static __device__ __forceinline__ NormalAt Normal(float x) {
    return {NormalCdf(x), NormalDensity(x)};
  }
};

__device__ __forceinline__ float ValueOf(Activation f, float x) {
  switch (f) {
#define TESSERA_ROW(F)   \
  case Activation::k##F: \
    return functions::F::Value<Math>(x);
    TESSERA_FUNCTIONS(TESSERA_ROW)
#undef TESSERA_ROW
  }
  return x;
}
__device__ __forceinline__ Tangent TangentOf(Activation f, float x) {
  switch (f) {
#define TESSERA_ROW(F)   \
  case Activation::k##F: \
    return functions::F::At<Math>(x);
    TESSERA_FUNCTIONS(TESSERA_ROW)
#undef TESSERA_ROW
  }
  return {x, 1};
}

}  // namespace
}  // namespace tessera::TESSERA_DEVICE

#endif  // TESSERA_KERNELS_CUDA_FUNCTIONS_H_
