#include "kernels/optimiser/muon.h"

#include "kernels/optimiser/blocks.h"

namespace tessera::TESSERA_ISA {
namespace {

// body(block, begin, end) for every block of one array.
template <class Body>
void ForBlocksOf(int64_t size, Body&& body) {
  ParallelFor(OptimizerBlocks(size), [&](int64_t block) {
    const int64_t begin = block * kOptimizerBlock, end = begin + kOptimizerBlock;
    body(block, begin, end < size ? end : size);
  });
}

void MuonMomentum(const MuonMomentumArgs& a) {
  const bool halted = a.outcome->halted != 0;
  const float scale = a.outcome->gradient_scale;
  ForBlocksOf(a.size, [&](int64_t block, int64_t begin, int64_t end) {
    double sum = 0;
    for (int64_t i = begin; i < end; i += 256) {
      const int64_t stop = i + 256 < end ? i + 256 : end;
      Vec squares = Splat(0);
      ForLanes(stop - i, [&](int64_t j, int n) {
        const int64_t at = i + j;
        if (halted) return Store(a.update + at, Vec{}, n);
        const Vec g = Load(a.gradient + at, n) * scale;
        const Vec m = a.beta * Load(a.momentum + at, n) + g, u = g + a.beta * m;
        Store(a.momentum + at, m, n);
        Store(a.update + at, u, n);
        squares += u * u;
      });
      sum += static_cast<double>(Sum(squares));
    }
    a.partial[block] = sum;
  });
}

void MuonNormalise(const MuonNormaliseArgs& a) {
  double squares = 0;
  for (int64_t i = 0; i < OptimizerBlocks(a.size); ++i) squares += a.partial[i];
  const auto factor = static_cast<float>(1 / (__builtin_sqrt(squares) + 1e-7));
  ForBlocksOf(a.size, [&](int64_t, int64_t begin, int64_t end) {
    ForLanes(end - begin, [&](int64_t i, int n) {
      Store(a.update + begin + i, Load(a.update + begin + i, n) * factor, n);
    });
  });
}

void MuonPolynomial(const MuonPolynomialArgs& a) {
  ParallelRanges(a.n, 1 + kOptimizerBlock / (a.n + 1), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float* const row = a.square + r * a.n;
      ForLanes(a.n, [&](int64_t i, int n) {
        Store(row + i,
              kNewtonSchulzB * Load(a.gram + r * a.n + i, n) + kNewtonSchulzC * Load(row + i, n),
              n);
      });
      row[r] += kNewtonSchulzA;
    }
  });
}

void MuonApply(const MuonApplyArgs& a) {
  if (a.outcome->halted != 0) return;
  const float lr = a.step->lr * a.lr_scale;
  ForBlocksOf(a.size, [&](int64_t, int64_t begin, int64_t end) {
    ForLanes(end - begin, [&](int64_t j, int n) {
      const int64_t i = begin + j;
      const Vec p = Load(a.parameter + i, n);
      Store(a.parameter + i, p - lr * (a.scale * Load(a.update + i, n) + a.weight_decay * p), n);
    });
  });
}

}  // namespace

TESSERA_KERNEL_OF(MuonMomentumArgs, MuonMomentum)
TESSERA_KERNEL_OF(MuonNormaliseArgs, MuonNormalise)
TESSERA_KERNEL_OF(MuonPolynomialArgs, MuonPolynomial)
TESSERA_KERNEL_OF(MuonApplyArgs, MuonApply)

}  // namespace tessera::TESSERA_ISA
