// Matrix products beside the multiply-add peak of this machine, measured in the same run, and
// oneDNN where it is installed: GFLOP/s, medians. Usage: bench_matmul [threads] [avx2|avx512]

#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "core/parallel.h"
#include "kernels/dispatch.h"
#include "kernels/product/matmul.h"

#ifdef TESSERA_BENCH_ONEDNN
#include <omp.h>

#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>
#endif

namespace tessera {
namespace {

double Seconds(const std::function<void()>& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Median seconds of enough calls to fill a quarter of a second.
double Median(const std::function<void()>& f) {
  f();
  const double once = Seconds(f);
  const int calls = std::clamp(static_cast<int>(0.25 / once), 5, 2000);
  std::vector<double> t;
  for (int i = 0; i < calls; ++i) t.push_back(Seconds(f));
  std::nth_element(t.begin(), t.begin() + calls / 2, t.end());
  return t[static_cast<size_t>(calls) / 2];
}

constexpr int64_t kPeakSteps = 2'000'000;
// Ten independent chains of multiply-adds; returns the FLOPs done.
__attribute__((target("avx2,fma"))) double PeakAvx2() {
  __m256 s[10];
  for (__m256& v : s) v = _mm256_set1_ps(1.0f);
  const __m256 x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(0.001f);
  for (int64_t i = 0; i < kPeakSteps; ++i)
#pragma GCC unroll 10
    for (int j = 0; j < 10; ++j) s[j] = _mm256_fmadd_ps(s[j], x, y);
  for (__m256& v : s) asm volatile("" ::"x"(v));
  return kPeakSteps * 10 * 16.0;
}
__attribute__((target("avx512f"))) double PeakAvx512() {
  __m512 s[10];
  for (__m512& v : s) v = _mm512_set1_ps(1.0f);
  const __m512 x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(0.001f);
  for (int64_t i = 0; i < kPeakSteps; ++i)
#pragma GCC unroll 10
    for (int j = 0; j < 10; ++j) s[j] = _mm512_fmadd_ps(s[j], x, y);
  for (__m512& v : s) asm volatile("" ::"x"(v));
  return kPeakSteps * 10 * 32.0;
}
__attribute__((target("avx512f,avx512bf16"))) double PeakBf16() {
  __m512 s[10];
  for (__m512& v : s) v = _mm512_set1_ps(0.0f);
  const __m512bh x = (__m512bh)_mm512_set1_ps(0.5f);
  for (int64_t i = 0; i < kPeakSteps; ++i)
#pragma GCC unroll 10
    for (int j = 0; j < 10; ++j) s[j] = _mm512_dpbf16_ps(s[j], x, x);
  for (__m512& v : s) asm volatile("" ::"x"(v));
  return kPeakSteps * 10 * 64.0;
}

double PeakGflops(double (*loop)()) {
  double flops = 0;
  double best = 1e9;
  for (int i = 0; i < 5; ++i)
    best =
        std::min(best, Seconds([&] { ParallelFor(Threads(), [&](int64_t) { flops = loop(); }); }));
  return flops * Threads() / best / 1e9;
}

#ifdef TESSERA_BENCH_ONEDNN
using dnnl::memory;

// C = op(A) op(B) by a oneDNN matmul on the same memory.
double OneDnn(const MatmulArgs& m) {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  static dnnl::stream stream(engine);
  const auto type = [](DType t) {
    return t == DType::kF32 ? memory::data_type::f32 : memory::data_type::bf16;
  };
  const auto desc = [&](DType t, int64_t rows, int64_t cols, int64_t stride, Order order) {
    const memory::dims strides =
        order == Order::kPlain ? memory::dims{stride, 1} : memory::dims{1, stride};
    return memory::desc({rows, cols}, type(t), strides);
  };
  const auto a = desc(m.a.dtype, m.M, m.K, m.a.stride, m.a.order);
  const auto b = desc(m.b.dtype, m.K, m.N, m.b.stride, m.b.order);
  const auto c = desc(m.c.dtype, m.M, m.N, m.c.stride, Order::kPlain);
  try {
    const dnnl::matmul product(dnnl::matmul::primitive_desc(dnnl::matmul::desc(a, b, c), engine));
    const std::unordered_map<int, memory> args = {
        {DNNL_ARG_SRC, memory(a, engine, const_cast<void*>(m.a.data))},
        {DNNL_ARG_WEIGHTS, memory(b, engine, const_cast<void*>(m.b.data))},
        {DNNL_ARG_DST, memory(c, engine, m.c.data)}};
    return Median([&] {
      product.execute(stream, args);
      stream.wait();
    });
  } catch (const dnnl::error&) {
    return 0;
  }
}
#else
double OneDnn(const MatmulArgs&) { return 0; }
#endif

void Row(const char* what, int64_t M, int64_t N, int64_t K, const Factor& a, const Factor& b,
         const Product& c, Precision precision, double peak) {
  const MatmulArgs args{.a = a, .b = b, .c = c, .M = M, .N = N, .K = K, .precision = precision};
  const double flops = static_cast<double>(args.cost().flops);
  const double bytes = static_cast<double>(args.cost().bytes);
  const double ours = Median([&] { Dispatch(Device::kCpu, args); });
  // The peer takes bf16 only on both sides.
  MatmulArgs peer = args;
  if (precision == Precision::kBF16) peer.a.dtype = peer.b.dtype = DType::kBF16;
  const double theirs = OneDnn(peer);
  std::printf("%-4s %-7s %5ld %5ld %5ld %9.1f us %7.1f GFLOP/s %4.0f %% %6.1f GB/s", Name(a.dtype),
              what, M, N, K, ours * 1e6, flops / ours / 1e9, 100 * flops / ours / 1e9 / peak,
              bytes / ours / 1e9);
  if (theirs > 0)
    std::printf("   oneDNN %7.1f GFLOP/s, ours/oneDNN %.2f", flops / theirs / 1e9, theirs / ours);
  std::printf("\n");
  std::fflush(stdout);
}

void Shapes(DType t, double peak) {
  const Precision p = t == DType::kF32 ? Precision::kF32 : Precision::kBF16;
  // Tokens, outputs, inputs of a layer.
  const int64_t shapes[][3] = {
      {4096, 256, 256}, {4096, 1024, 256}, {4096, 256, 1024}, {4096, 768, 768}, {2048, 3072, 768},
      {4096, 64, 256},  {256, 4096, 768},  {64, 768, 768},    {16, 768, 768},   {8, 768, 768},
      {1, 768, 768},    {1, 3072, 768},    {1, 32000, 768},   {512, 32000, 768}};
  for (const auto& s : shapes) {
    const int64_t M = s[0], N = s[1], K = s[2];
    // Both types of the same memory; zero bits are zeros of either.
    std::vector<float> x(static_cast<size_t>(M * K)), w(static_cast<size_t>(N * K)),
        y(static_cast<size_t>(M * N)), dw(static_cast<size_t>(N * K));
    const Factor X{x.data(), t, K}, W{w.data(), DType::kF32, K}, dY{y.data(), t, N};
    Factor wt = W, dyt = dY;
    wt.order = dyt.order = Order::kTransposed;
    Row("forward", M, N, K, X, wt, {y.data(), t, N}, p, peak);
    if (M < 64 || N > 4096) continue;
    Row("dX", M, K, N, dY, W, {x.data(), t, K}, p, peak);
    Row("dW", N, K, M, dyt, X, {dw.data(), DType::kF32, K}, p, peak);
  }
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  using namespace tessera;
  SetThreads(argc > 1 ? std::atoi(argv[1]) : 0);
  const std::string isa = argc > 2 ? argv[2] : "";
  if (!isa.empty() && !SetIsa(isa == "avx2" ? Isa::kAvx2 : Isa::kAvx512)) {
    std::fprintf(stderr, "this processor has no %s\n", isa.c_str());
    return 1;
  }
#ifdef TESSERA_BENCH_ONEDNN
  omp_set_num_threads(Threads());
#endif
  const bool wide = ActiveIsa() == Isa::kAvx512;
  const double f32 = PeakGflops(wide ? PeakAvx512 : PeakAvx2);
  const double half = wide ? PeakGflops(PeakBf16) : f32;
  std::printf("%d threads, %s: peak %.1f GFLOP/s fp32, %.1f bf16\n", Threads(), Name(ActiveIsa()),
              f32, half);
  Shapes(DType::kF32, f32);
  Shapes(DType::kBF16, half);
}
