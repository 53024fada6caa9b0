#include "kernels/adamw.h"

#include "core/parallel.h"
#include "kernels/cpu/simd.h"

namespace tessera::TESSERA_ISA {
namespace {

// body(block, tensor, begin, end) for every block of every tensor.
template <class Body>
void ForBlocks(const AdamWTensor* tensors, int64_t count, Body&& body) {
  ParallelFor(OptimizerBlocks(tensors, count), [&](int64_t block) {
    int64_t i = 0, first = 0;
    for (;; ++i) {
      const int64_t blocks = (tensors[i].size + kOptimizerBlock - 1) / kOptimizerBlock;
      if (block < first + blocks) break;
      first += blocks;
    }
    const int64_t begin = (block - first) * kOptimizerBlock;
    const int64_t end = begin + kOptimizerBlock;
    body(block, tensors[i], begin, end < tensors[i].size ? end : tensors[i].size);
  });
}

void AdamW(const AdamWArgs& a) {
  ForBlocks(a.tensors, a.count, [&](int64_t, const AdamWTensor& t, int64_t begin, int64_t end) {
    ForLanes(end - begin, [&](int64_t at, int n) {
      const int64_t i = begin + at;
      const Vec g = Load(t.gradient + i, n) * a.gradient_scale;
      const Vec m = a.beta1 * Load(t.first_moment + i, n) + (1 - a.beta1) * g;
      const Vec v = a.beta2 * Load(t.second_moment + i, n) + (1 - a.beta2) * (g * g);
      const Vec p = Load(t.parameter + i, n);
      const Vec step = m * a.first_correction / (Sqrt(v * a.second_correction) + a.epsilon);
      Store(t.first_moment + i, m, n);
      Store(t.second_moment + i, v, n);
      Store(t.parameter + i, p - a.lr * (step + t.weight_decay * p), n);
    });
  });
}

void SquareSum(const SquareSumArgs& a) {
  ForBlocks(a.tensors, a.count,
            [&](int64_t block, const AdamWTensor& t, int64_t begin, int64_t end) {
              double sum = 0;
              for (int64_t i = begin; i < end; i += 256) {
                const int64_t stop = i + 256 < end ? i + 256 : end;
                Vec squares = Splat(0);
                ForLanes(stop - i, [&](int64_t at, int n) {
                  const Vec g = Load(t.gradient + i + at, n);
                  squares += g * g;
                });
                sum += static_cast<double>(Sum(squares));
              }
              a.partial[block] = sum;
            });
}

}  // namespace

TESSERA_KERNEL_OF(AdamWArgs, AdamW)
TESSERA_KERNEL_OF(SquareSumArgs, SquareSum)

}  // namespace tessera::TESSERA_ISA
