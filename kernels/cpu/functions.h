#ifndef TESSERA_KERNELS_CPU_FUNCTIONS_H_
#define TESSERA_KERNELS_CPU_FUNCTIONS_H_

#include "kernels/cpu/vmath.h"
#include "kernels/pointwise/activation.h"

// The functions of kernels/pointwise/activation.h and their slopes over vectors.

namespace tessera::TESSERA_ISA {
namespace {

template <Activation F>
inline __attribute__((always_inline)) Vec ValueOf(Vec x) {
  switch (F) {
    case Activation::kIdentity:
      return x;
    case Activation::kGelu:
      return Gelu(x);
    case Activation::kSilu:
      return Silu(x);
    case Activation::kRelu2: {
      const Vec p = Max(x, Vec{});
      return p * p;
    }
    case Activation::kSigmoid:
      return Sigmoid(x);
    case Activation::kLogSigmoid:
      return LogSigmoid(x);
    case Activation::kSoftplus:
      return Softplus(x);
    case Activation::kTanh:
      return Tanh(x);
    case Activation::kExp:
      return Exp(x);
    case Activation::kLog:
      return Log(x);
  }
}

struct Tangent {
  Vec value, slope;
};
template <Activation F>
inline __attribute__((always_inline)) Tangent TangentOf(Vec x) {
  switch (F) {
    case Activation::kIdentity:
      return {x, Splat(1)};
    case Activation::kGelu: {
      const NormalAt n = Normal(x);
      return {x * n.cdf, n.cdf + x * n.density};
    }
    case Activation::kSilu: {
      const Vec s = Sigmoid(x);
      return {x * s, s * (1.0f + x * (1.0f - s))};
    }
    case Activation::kRelu2: {
      const Vec p = Max(x, Vec{});
      return {p * p, p + p};
    }
    case Activation::kSigmoid: {
      const Vec s = Sigmoid(x);
      return {s, s * (1.0f - s)};
    }
    case Activation::kLogSigmoid:
      return {LogSigmoid(x), Sigmoid(-x)};
    case Activation::kSoftplus:
      return {Softplus(x), Sigmoid(x)};
    case Activation::kTanh: {
      const Vec t = Tanh(x);
      return {t, 1.0f - t * t};
    }
    case Activation::kExp: {
      const Vec e = Exp(x);
      return {e, e};
    }
    case Activation::kLog:
      return {Log(x), 1.0f / x};
  }
}

template <Activation F>
struct Function {
  static Vec Value(Vec x) { return ValueOf<F>(x); }
  static Tangent At(Vec x) { return TangentOf<F>(x); }
};

// use(Function<f>{}): one loop for each function.
template <class Use>
void With(Activation f, Use&& use) {
  switch (f) {
    case Activation::kIdentity:
      return use(Function<Activation::kIdentity>{});
    case Activation::kGelu:
      return use(Function<Activation::kGelu>{});
    case Activation::kSilu:
      return use(Function<Activation::kSilu>{});
    case Activation::kRelu2:
      return use(Function<Activation::kRelu2>{});
    case Activation::kSigmoid:
      return use(Function<Activation::kSigmoid>{});
    case Activation::kLogSigmoid:
      return use(Function<Activation::kLogSigmoid>{});
    case Activation::kSoftplus:
      return use(Function<Activation::kSoftplus>{});
    case Activation::kTanh:
      return use(Function<Activation::kTanh>{});
    case Activation::kExp:
      return use(Function<Activation::kExp>{});
    case Activation::kLog:
      return use(Function<Activation::kLog>{});
  }
}

}  // namespace
}  // namespace tessera::TESSERA_ISA

#endif  // TESSERA_KERNELS_CPU_FUNCTIONS_H_
