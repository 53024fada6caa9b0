#ifndef TESSERA_KERNELS_CPU_FUNCTIONS_H_
#define TESSERA_KERNELS_CPU_FUNCTIONS_H_

#include "kernels/cpu/vmath.h"
#include "kernels/pointwise/activation.h"

// The functions of kernels/pointwise/functions.h over vectors.

namespace tessera::TESSERA_ISA {
namespace {

struct Tangent {
  Vec value, slope;
};

struct Math {
  using X = Vec;
  using Tangent = TESSERA_ISA::Tangent;
  static Vec Splat(float x) { return TESSERA_ISA::Splat(x); }
  static Vec Max(Vec x, Vec y) { return TESSERA_ISA::Max(x, y); }
  static Vec Abs(Vec x) { return TESSERA_ISA::Abs(x); }
  static Vec Sqrt(Vec x) { return TESSERA_ISA::Sqrt(x); }
  static Vec Exp(Vec x) { return TESSERA_ISA::Exp(x); }
  static Vec Log(Vec x) { return TESSERA_ISA::Log(x); }
  static Vec Sin(Vec x) { return TESSERA_ISA::Sin(x); }
  static Vec Cos(Vec x) { return TESSERA_ISA::Cos(x); }
  static Vec Tanh(Vec x) { return TESSERA_ISA::Tanh(x); }
  static Vec TanhSlope(Vec t, Vec) { return 1.0f - t * t; }
  static Vec Sigmoid(Vec x) { return TESSERA_ISA::Sigmoid(x); }
  static Vec OneMinusSigmoid(Vec s, Vec) { return 1.0f - s; }
  static Vec Softplus(Vec x) { return TESSERA_ISA::Softplus(x); }
  static NormalAt Normal(Vec x) { return TESSERA_ISA::Normal(x); }
};

template <class F>
struct Function {
  static Vec Value(Vec x) { return F::template Value<Math>(x); }
  static Tangent At(Vec x) { return F::template At<Math>(x); }
};

// use(Function<f>{}): one loop for each function.
template <class Use>
void With(Activation f, Use&& use) {
  switch (f) {
#define TESSERA_ROW(F)   \
  case Activation::k##F: \
    return use(Function<functions::F>{});
    TESSERA_FUNCTIONS(TESSERA_ROW)
#undef TESSERA_ROW
  }
}

}  // namespace
}  // namespace tessera::TESSERA_ISA

#endif  // TESSERA_KERNELS_CPU_FUNCTIONS_H_
