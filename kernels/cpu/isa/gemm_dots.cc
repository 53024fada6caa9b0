#include "core/parallel.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/transpose.h"

namespace tessera::TESSERA_ISA {
namespace {

// From this many rows on, packing w pays.
constexpr int64_t kMaxRows = 16;

// The sums of 8 vectors.
inline __m256 Sums8(const Vec v[8]) {
  __m256 r[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
#ifdef __AVX512F__
    r[i] = _mm512_castps512_ps256(v[i]) + _mm512_extractf32x8_ps(v[i], 1);
#else
    r[i] = v[i];
#endif
  }
  Transpose8(r);
  return ((r[0] + r[4]) + (r[2] + r[6])) + ((r[1] + r[5]) + (r[3] + r[7]));
}

// out[i * kN + j] = dot(a_i, w_j) for kM rows of a and kN rows of w, over K. The next kN rows of w
// are prefetched meanwhile: short rows end before the processor's own prefetching has caught up.
template <int kM, int kN, class W>
void Dots(int64_t K, const float* a, int64_t lda, const W* w, int64_t ldw, float* out) {
  constexpr int kSums = (kM * kN + 7) / 8 * 8;
  Vec s[kSums];
#pragma GCC unroll 16
  for (int i = 0; i < kSums; ++i) s[i] = Vec{};
  const auto step = [&](int64_t k, auto load) __attribute__((always_inline)) {
    Vec y[kN];
#pragma GCC unroll 8
    for (int j = 0; j < kN; ++j) {
      _mm_prefetch(w + (j + kN) * ldw + k, _MM_HINT_T1);
      y[j] = load(w + j * ldw + k);
    }
#pragma GCC unroll 4
    for (int i = 0; i < kM; ++i) {
      const Vec x = load(a + i * lda + k);
#pragma GCC unroll 8
      for (int j = 0; j < kN; ++j) s[i * kN + j] += x * y[j];
    }
  };
  int64_t k = 0;
  for (; k + kLanes <= K; k += kLanes) step(k, [](const auto* p) { return Load(p); });
  if (k < K) step(k, [&](const auto* p) { return Load(p, K - k); });
#pragma GCC unroll 2
  for (int i = 0; i < kSums; i += 8) _mm256_storeu_ps(out + i, Sums8(s + i));
}

template <int kM, int kN, class W>
void DotRows(const GemmArgs& args, const float* a, int64_t lda, int64_t i, int64_t j, const W* w) {
  float out[32];
  Dots<kM, kN>(args.K, a + i * lda, lda, w, args.b.stride, out);
  Finish(args, out, kN, i, kM, j, kN);
}

// kN rows of w against every row of a.
template <int kN, class W>
void DotColumns(const GemmArgs& args, const float* a, int64_t lda, int64_t j) {
  const W* w = static_cast<const W*>(args.b.data) + j * args.b.stride;
  constexpr int kM = kN == 8 ? 1 : 4;
  int64_t i = 0;
  for (; i + kM <= args.M; i += kM) DotRows<kM, kN>(args, a, lda, i, j, w);
  switch (args.M - i) {
    case 1:
      return DotRows<1, kN>(args, a, lda, i, j, w);
    case 2:
      return DotRows<2, kN>(args, a, lda, i, j, w);
    case 3:
      return DotRows<3, kN>(args, a, lda, i, j, w);
  }
}

template <class W>
void DotBlockOf(const GemmArgs& args, const float* a, int64_t lda, int64_t j0, int64_t n) {
  int64_t j = j0;
  const int64_t end = j0 + n;
  if (args.M == 1)
    for (; j + 8 <= end; j += 8) DotColumns<8, W>(args, a, lda, j);
  for (; j + 4 <= end; j += 4) DotColumns<4, W>(args, a, lda, j);
  for (; j < end; ++j) DotColumns<1, W>(args, a, lda, j);
}

}  // namespace

bool PrefersDots(const GemmArgs& args) {
  return args.lower == Lower::kNone && args.M <= kMaxRows && args.a.order == Order::kPlain &&
         args.b.order == Order::kTransposed && args.b.rows == nullptr;
}

void DotBlock(const GemmArgs& args, int64_t j0, int64_t n) {
  const auto* a = static_cast<const float*>(args.a.data);
  int64_t lda = args.a.stride;
  if (args.a.dtype != DType::kF32 || args.a.rows != nullptr) {
    lda = args.K;
    auto* copy = static_cast<float*>(ThreadScratch(args.M * lda * 4 + 64, 0));
    for (int64_t i = 0; i < args.M; ++i) {
      const int64_t offset = (args.a.rows ? args.a.rows[i] : i) * args.a.stride;
      const auto widen = [&](const auto* x) {
        ForLanes(args.K, [&](int64_t k, int n) {
          if (n == kLanes) return Store(copy + i * lda + k, Load(x + k));
          Store(copy + i * lda + k, Load(x + k, n), n);
        });
      };
      if (args.a.dtype == DType::kF32) {
        widen(static_cast<const float*>(args.a.data) + offset);
      } else {
        widen(static_cast<const bf16*>(args.a.data) + offset);
      }
    }
    a = copy;
  }
  if (args.b.dtype == DType::kF32) return DotBlockOf<float>(args, a, lda, j0, n);
  DotBlockOf<bf16>(args, a, lda, j0, n);
}

}  // namespace tessera::TESSERA_ISA
