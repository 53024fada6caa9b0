#ifndef TESSERA_KERNELS_POINTWISE_FUNCTIONS_H_
#define TESSERA_KERNELS_POINTWISE_FUNCTIONS_H_

#include <cstdint>

// Functions of single elements, each written once for every device: its name, what a value costs
// and a tangent again, its value and its slope. M is the mathematics of a device (Math in
// kernels/cpu/functions.h and kernels/cuda/functions.h): M::X is a float or a vector of them. To
// add a function, write it here and name it in TESSERA_FUNCTIONS at the end.

namespace tessera::functions {

#ifdef __CUDACC__
#define TESSERA_FUNCTION \
  template <class M>     \
  __device__ __forceinline__ static
#else
#define TESSERA_FUNCTION \
  template <class M>     \
  inline __attribute__((always_inline)) static
#endif
#define TESSERA_VALUE TESSERA_FUNCTION typename M::X Value(typename M::X x)
#define TESSERA_TANGENT TESSERA_FUNCTION typename M::Tangent At(typename M::X x)

struct Identity {
  static constexpr char kName[] = "identity";
  static constexpr int64_t kFlops = 0;
  TESSERA_VALUE { return x; }
  TESSERA_TANGENT { return {x, M::Splat(1)}; }
};

// x Phi(x), Phi the normal distribution (Hendrycks & Gimpel 2016, eq. 2).
struct Gelu {
  static constexpr char kName[] = "gelu";
  static constexpr int64_t kFlops = 4;
  TESSERA_VALUE { return x * M::Normal(x).cdf; }
  TESSERA_TANGENT {
    const auto n = M::Normal(x);
    return {x * n.cdf, n.cdf + x * n.density};
  }
};

// x sigmoid(x) (Elfwing et al. 2017, eq. 9).
struct Silu {
  static constexpr char kName[] = "silu";
  static constexpr int64_t kFlops = 4;
  TESSERA_VALUE { return x * M::Sigmoid(x); }
  TESSERA_TANGENT {
    const auto s = M::Sigmoid(x);
    return {x * s, s * (1.0f + x * M::OneMinusSigmoid(s, x))};
  }
};

// max(x, 0)^2 (So et al. 2021, section 4).
struct Relu2 {
  static constexpr char kName[] = "relu2";
  static constexpr int64_t kFlops = 2;
  TESSERA_VALUE {
    const auto p = M::Max(x, M::Splat(0));
    return p * p;
  }
  TESSERA_TANGENT {
    const auto p = M::Max(x, M::Splat(0));
    return {p * p, p + p};
  }
};

// 1 / (1 + exp(-x)).
struct Sigmoid {
  static constexpr char kName[] = "sigmoid";
  static constexpr int64_t kFlops = 3;
  TESSERA_VALUE { return M::Sigmoid(x); }
  TESSERA_TANGENT {
    const auto s = M::Sigmoid(x);
    return {s, s * M::OneMinusSigmoid(s, x)};
  }
};

struct LogSigmoid {
  static constexpr char kName[] = "log_sigmoid";
  static constexpr int64_t kFlops = 4;
  TESSERA_VALUE { return -M::Softplus(-x); }
  TESSERA_TANGENT { return {-M::Softplus(-x), M::Sigmoid(-x)}; }
};

// log(1 + exp(x)).
struct Softplus {
  static constexpr char kName[] = "softplus";
  static constexpr int64_t kFlops = 4;
  TESSERA_VALUE { return M::Softplus(x); }
  TESSERA_TANGENT { return {M::Softplus(x), M::Sigmoid(x)}; }
};

struct Tanh {
  static constexpr char kName[] = "tanh";
  static constexpr int64_t kFlops = 4;
  TESSERA_VALUE { return M::Tanh(x); }
  TESSERA_TANGENT {
    const auto t = M::Tanh(x);
    return {t, M::TanhSlope(t, x)};
  }
};

struct Exp {
  static constexpr char kName[] = "exp";
  static constexpr int64_t kFlops = 1;
  TESSERA_VALUE { return M::Exp(x); }
  TESSERA_TANGENT {
    const auto e = M::Exp(x);
    return {e, e};
  }
};

struct Log {
  static constexpr char kName[] = "log";
  static constexpr int64_t kFlops = 1;
  TESSERA_VALUE { return M::Log(x); }
  TESSERA_TANGENT { return {M::Log(x), 1.0f / x}; }
};

struct Relu {
  static constexpr char kName[] = "relu";
  static constexpr int64_t kFlops = 1;
  TESSERA_VALUE { return M::Max(x, M::Splat(0)); }
  TESSERA_TANGENT { return {M::Max(x, M::Splat(0)), x > 0.0f ? M::Splat(1) : M::Splat(0)}; }
};

// elu(x) + 1: x + 1 above 0, exp(x) below, the feature map of linear attention (Katharopoulos et
// al. 2020, eq. 7).
struct EluPlusOne {
  static constexpr char kName[] = "elu_plus_one";
  static constexpr int64_t kFlops = 2;
  TESSERA_VALUE { return x > 0.0f ? x + 1.0f : M::Exp(x); }
  TESSERA_TANGENT {
    const auto e = M::Exp(x);
    return {x > 0.0f ? x + 1.0f : e, x > 0.0f ? M::Splat(1) : e};
  }
};

struct Sin {
  static constexpr char kName[] = "sin";
  static constexpr int64_t kFlops = 1;
  TESSERA_VALUE { return M::Sin(x); }
  TESSERA_TANGENT { return {M::Sin(x), M::Cos(x)}; }
};

struct Cos {
  static constexpr char kName[] = "cos";
  static constexpr int64_t kFlops = 1;
  TESSERA_VALUE { return M::Cos(x); }
  TESSERA_TANGENT { return {M::Cos(x), -M::Sin(x)}; }
};

struct Sqrt {
  static constexpr char kName[] = "sqrt";
  static constexpr int64_t kFlops = 1;
  TESSERA_VALUE { return M::Sqrt(x); }
  TESSERA_TANGENT {
    const auto s = M::Sqrt(x);
    return {s, 0.5f / s};
  }
};

// |x|, with slope 0 at 0.
struct Abs {
  static constexpr char kName[] = "abs";
  static constexpr int64_t kFlops = 1;
  TESSERA_VALUE { return M::Abs(x); }
  TESSERA_TANGENT {
    const auto below = x < 0.0f ? M::Splat(-1) : M::Splat(0);
    return {M::Abs(x), x > 0.0f ? M::Splat(1) : below};
  }
};

struct Square {
  static constexpr char kName[] = "square";
  static constexpr int64_t kFlops = 1;
  TESSERA_VALUE { return x * x; }
  TESSERA_TANGENT { return {x * x, x + x}; }
};

struct Reciprocal {
  static constexpr char kName[] = "reciprocal";
  static constexpr int64_t kFlops = 1;
  TESSERA_VALUE { return 1.0f / x; }
  TESSERA_TANGENT {
    const auto r = 1.0f / x;
    return {r, -(r * r)};
  }
};

#undef TESSERA_VALUE
#undef TESSERA_TANGENT
#undef TESSERA_FUNCTION

#define TESSERA_FUNCTIONS(F) \
  F(Identity)                \
  F(Gelu)                    \
  F(Silu)                    \
  F(Relu2)                   \
  F(Sigmoid)                 \
  F(LogSigmoid)              \
  F(Softplus)                \
  F(Tanh)                    \
  F(Exp)                     \
  F(Log)                     \
  F(Relu)                    \
  F(EluPlusOne)              \
  F(Sin)                     \
  F(Cos)                     \
  F(Sqrt)                    \
  F(Abs)                     \
  F(Square)                  \
  F(Reciprocal)

}  // namespace tessera::functions

#endif  // TESSERA_KERNELS_POINTWISE_FUNCTIONS_H_
