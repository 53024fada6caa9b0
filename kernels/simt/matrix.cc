#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "core/dtype.h"
#include "kernels/simt/sanitizer.h"
#include "kernels/simt/warp.h"

// ldmatrix and mma.sync. In every fragment lane l stands at row (or column) l / 4 and at the pair
// of columns (or rows) that begins at 2 (l % 4), or for tf32 at the single one l % 4.

namespace tessera::simt {
namespace {

struct Operands {
  float d[4];
  uint32_t a[4], b[2];
};
static_assert(sizeof(Operands) <= sizeof(LaneValue::data));

// d[16, 8] += a[16, K] b[K, 8], rounding each sum to fp32 in the order of k; products of bf16, fp16
// and tf32 are exact in fp32. A tensor core keeps sums of several products wider and truncates
// them, so that results agree to fp32's precision and not to the bit.
template <int K>
struct Product {
  float a[16][K], b[K][8];
  void AddTo(LaneValue* lanes) const {
    for (int lane = 0; lane < kWarpSize; ++lane) {
      Operands x;
      std::memcpy(&x, lanes[lane].data, sizeof x);
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        for (int k = 0; k < K; ++k) x.d[i] += a[row][k] * b[k][column];
      }
      std::memcpy(lanes[lane].data, &x, sizeof x);
    }
  }
};

// One of the two numbers in a register.
template <class T>
float HalfOf(uint32_t pair, int half) {
  T x;
  x.bits = static_cast<uint16_t>(pair >> 16 * half);
  return static_cast<float>(x);
}
float Tf32(uint32_t bits) { return std::bit_cast<float>(bits & 0xffffe000u); }

template <class T>
void AddHalves(LaneValue* lanes, uint32_t, int) {
  Product<16> p;
  for (int lane = 0; lane < kWarpSize; ++lane) {
    Operands x;
    std::memcpy(&x, lanes[lane].data, sizeof x);
    const int row = lane / 4;
    for (int half = 0; half < 2; ++half) {
      const int k = lane % 4 * 2 + half;
      p.a[row][k] = HalfOf<T>(x.a[0], half);
      p.a[row + 8][k] = HalfOf<T>(x.a[1], half);
      p.a[row][k + 8] = HalfOf<T>(x.a[2], half);
      p.a[row + 8][k + 8] = HalfOf<T>(x.a[3], half);
      p.b[k][row] = HalfOf<T>(x.b[0], half);
      p.b[k + 8][row] = HalfOf<T>(x.b[1], half);
    }
  }
  p.AddTo(lanes);
}

void AddTf32(LaneValue* lanes, uint32_t, int) {
  Product<8> p;
  for (int lane = 0; lane < kWarpSize; ++lane) {
    Operands x;
    std::memcpy(&x, lanes[lane].data, sizeof x);
    const int row = lane / 4, k = lane % 4;
    p.a[row][k] = Tf32(x.a[0]);
    p.a[row + 8][k] = Tf32(x.a[1]);
    p.a[row][k + 4] = Tf32(x.a[2]);
    p.a[row + 8][k + 4] = Tf32(x.a[3]);
    p.b[k][row] = Tf32(x.b[0]);
    p.b[k + 4][row] = Tf32(x.b[1]);
  }
  p.AddTo(lanes);
}

// Instructions marked .aligned are executed by a whole warp.
void MeetWhole(const Call& call, Brought brought, Combine combine) {
  const Block& block = Block::Running();
  const int warp = Block::Running().self().warp;
  if (block.AllLanes(warp) != ~0u)
    block.Fail(absl::StrCat(Describe(call), " in a warp of fewer than 32 threads"));
  Meet(~0u, call, brought, combine);
}

void Multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, const Call& call,
              Combine combine) {
  Operands x = {{d[0], d[1], d[2], d[3]}, {a[0], a[1], a[2], a[3]}, {b0, b1}};
  MeetWhole(call, {&x, sizeof x}, combine);
  std::memcpy(d, x.d, sizeof d);
}

// Every lane brings one row of 8 elements of 16 bits, lanes 8 m .. 8 m + 7 those of matrix m, and
// takes two elements of each.
template <Layout kLayout>
void Distribute(LaneValue* lanes, uint32_t, int) {
  uint16_t rows[kWarpSize][8];
  for (int lane = 0; lane < kWarpSize; ++lane) std::memcpy(rows[lane], lanes[lane].data, 16);
  for (int lane = 0; lane < kWarpSize; ++lane) {
    uint32_t r[4];
    for (int m = 0; m < 4; ++m) {
      const uint16_t(*matrix)[8] = rows + 8 * m;
      const int row = lane / 4, column = lane % 4 * 2;
      const bool plain = kLayout == Layout::kPlain;
      const uint32_t low = plain ? matrix[row][column] : matrix[column][row];
      const uint32_t high = plain ? matrix[row][column + 1] : matrix[column + 1][row];
      r[m] = low | high << 16;
    }
    std::memcpy(lanes[lane].data, r, sizeof r);
  }
}

}  // namespace

void MultiplyBf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                  std::source_location at) {
  Multiply(d, a, b0, b1, {"mma_bf16", at}, &AddHalves<bf16>);
}

void MultiplyFp16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                  std::source_location at) {
  Multiply(d, a, b0, b1, {"mma_fp16", at}, &AddHalves<f16>);
}

void MultiplyTf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                  std::source_location at) {
  Multiply(d, a, b0, b1, {"mma_tf32", at}, &AddTf32);
}

// A lane reads its row when it arrives, before the others do: the instruction does not order the
// lanes' accesses, so a row that another lane has yet to write is read too early here.
void LoadMatrices(uint32_t (&r)[4], const void* row, Layout layout, std::source_location at) {
  const Call call = {layout == Layout::kPlain ? "ldmatrix_x4" : "ldmatrix_x4_trans", at};
  {
    Unwatched unwatched;
    Block& block = Block::Running();
    if (!block.shared().Contains(row, 16))
      block.Fail(absl::StrCat(Describe(call), ": a row that is not within shared memory"));
    if (reinterpret_cast<uintptr_t>(row) % 16 != 0)
      block.Fail(absl::StrCat(Describe(call), ": a row that is not aligned to 16 bytes"));
  }
  Reads(row, 16);
  std::memcpy(r, row, 16);
  MeetWhole(
      call, {r, sizeof r},
      layout == Layout::kPlain ? &Distribute<Layout::kPlain> : &Distribute<Layout::kTransposed>);
}

}  // namespace tessera::simt
