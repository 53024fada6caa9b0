#include "core/parallel.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/simd.h"

namespace tessera::TESSERA_ISA {
namespace {

inline int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t Max(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t Pieces(int64_t n, int64_t size) { return (n + size - 1) / size; }

// Columns come in whole register tiles, of either instruction set.
constexpr int64_t kColumns = 32;
// Blocks of one product that keep the threads of a machine busy to the end; fewer if there are
// other products to fill the gap.
constexpr int64_t kWanted = 8;
// Every element packed is used as often as the other side of the block is long: below this, packing
// shows. Two blocks there are even so.
constexpr int64_t kSide = 128;
// Below this many multiply-adds, waking a thread costs more than it brings.
constexpr int64_t kWorthThread = 1 << 18;

// The size of nearly equal parts of n, whole multiples of `unit`, of about `most` each.
inline int64_t Even(int64_t n, int64_t most, int64_t unit) {
  return Pieces(Pieces(n, Pieces(n, most)), unit) * unit;
}

struct Blocks {
  int64_t rows, columns;  // of a block
  int64_t down, across;   // how many
};

// Large enough that packing costs little.
Blocks Cut(const GemmArgs& a, int64_t products) {
  int64_t rows = a.M, columns = Min(a.N, kMaxColumns);
  if (PrefersDots(a)) {
    columns = 8 * (1 + 131072 / (a.K * 32 + 1));  // some 128 KiB of w
  } else if (a.M * a.N * a.K > kWorthThread) {
    rows = Even(a.M, 1024, 1), columns = Even(a.N, 768, kColumns);
    const auto halve = [&](int64_t wanted, int64_t least) {
      while (Pieces(a.M, rows) * Pieces(a.N, columns) < wanted) {
        if (rows >= columns && rows >= 2 * least) {
          rows = Pieces(rows, 2);
        } else if (columns >= 2 * least) {
          columns = Even(columns, columns / 2 + 1, kColumns);
        } else {
          break;
        }
      }
    };
    halve(Max(2, kWanted / products), kSide);
    halve(2, kColumns);
  }
  return {rows, columns, Pieces(a.M, rows), Pieces(a.N, columns)};
}

}  // namespace

int64_t BlockCount(const GemmArgs& args, int64_t products) {
  const Blocks cut = Cut(args, products);
  return cut.down * cut.across;
}

void RunBlock(const GemmArgs& args, int64_t products, int64_t block) {
  const Blocks cut = Cut(args, products);
  const int64_t i = block / cut.across * cut.rows, j = block % cut.across * cut.columns;
  const int64_t columns = Min(cut.columns, args.N - j);
  if (PrefersDots(args)) return DotBlock(args, j, columns);
  PackedBlock(args, i, Min(cut.rows, args.M - i), j, columns);
}

template <class T>
void SumColumns(const T* x, int64_t stride, int64_t rows, int64_t columns, Grad mode, float* y) {
  ForLanes(columns, [&](int64_t i, int n) {
    const auto load = [n](const auto* p) { return n == kLanes ? Load(p) : Load(p, n); };
    Vec s[4] = {};
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4)
      for (int u = 0; u < 4; ++u) s[u] += load(x + (r + u) * stride + i);
    for (; r < rows; ++r) s[r % 4] += load(x + r * stride + i);
    Vec sum = (s[0] + s[1]) + (s[2] + s[3]);
    if (mode == Grad::kAccumulate) sum += load(y + i);
    if (n == kLanes) {
      Store(y + i, sum);
    } else {
      Store(y + i, sum, n);
    }
  });
}
template void SumColumns(const float*, int64_t, int64_t, int64_t, Grad, float*);
template void SumColumns(const bf16*, int64_t, int64_t, int64_t, Grad, float*);

}  // namespace tessera::TESSERA_ISA
