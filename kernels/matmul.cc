#include "kernels/matmul.h"

#include "core/parallel.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/simd.h"

namespace tessera::TESSERA_ISA {
namespace {

inline int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }

void Matmul(const MatmulArgs& args) {
  if (args.M == 0 || args.N == 0) return;
  if (PrefersDots(args)) {
    // Chunks of w of some 128 KiB, whole groups of rows.
    const int64_t grain = 8 * (1 + 131072 / (args.K * 32 + 1));
    ParallelRanges(args.N, grain,
                   [&](int64_t begin, int64_t end) { DotBlock(args, begin, end - begin); });
    return;
  }
  const BlockSize size = ChooseBlocks(args.M, args.N, args.K);
  const int64_t across = (args.N + size.columns - 1) / size.columns;
  const int64_t down = (args.M + size.rows - 1) / size.rows;
  ParallelFor(across * down, [&](int64_t block) {
    const int64_t i = block / across * size.rows, j = block % across * size.columns;
    PackedBlock(args, i, Min(size.rows, args.M - i), j, Min(size.columns, args.N - j));
  });
}

// Columns by the chunk, rows in order: four running sums for each vector of columns, so that rows
// need not wait for one another's adds.
template <class T>
void ColumnSum(const ColumnSumArgs<T>& a) {
  constexpr int64_t kChunk = 64;
  ParallelRanges(a.C, kChunk, [&](int64_t begin, int64_t end) {
    ForLanes(end - begin, [&](int64_t i, int n) {
      const T* x = a.x + begin + i;
      const auto load = [n](const auto* p) { return n == kLanes ? Load(p) : Load(p, n); };
      Vec s[4] = {};
      int64_t r = 0;
      for (; r + 4 <= a.rows; r += 4)
        for (int u = 0; u < 4; ++u) s[u] += load(x + (r + u) * a.x_stride);
      for (; r < a.rows; ++r) s[r % 4] += load(x + r * a.x_stride);
      Vec sum = (s[0] + s[1]) + (s[2] + s[3]);
      float* y = a.y + begin + i;
      if (a.mode == Grad::kAccumulate) sum += load(y);
      if (n == kLanes) {
        Store(y, sum);
      } else {
        Store(y, sum, n);
      }
    });
  });
}

}  // namespace

TESSERA_KERNEL_OF(MatmulArgs, Matmul)
TESSERA_KERNEL(ColumnSum)

}  // namespace tessera::TESSERA_ISA
