#ifndef TESSERA_KERNELS_ATTENTION_ATTENTION_TILE_H_
#define TESSERA_KERNELS_ATTENTION_ATTENTION_TILE_H_

#include <cstdint>

#include "core/parallel.h"
#include "kernels/attention/attention.h"
#include "kernels/cpu/tile_product.h"
#include "kernels/cpu/vmath.h"

// What the attention kernels share. A tile holds up to kColumns *columns*: the queries of the heads
// that read one key head, in the order (t, head), so that a tile of a grouped model shares its keys
// and a tile of any model is a run of consecutive columns. Scores are kept transposed, [keys,
// columns]: the running maximum and sum are then vectors over the columns, and no lane is ever
// summed with its neighbour.

namespace tessera::TESSERA_ISA {
namespace {

constexpr int64_t kColumns = 64, kKeys = 64;
constexpr int64_t kEdgeKeys = 16;  // keys at once where a mask cuts through the tile
// A stride that is no power of two, so that the rows of a tile spread over the sets of the cache.
constexpr int64_t kTileStride = kColumns + 16;
constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;
constexpr float kNever = -1e30f;  // a maximum before any key was seen: finite, so that it subtracts

constexpr int64_t Smaller(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t Larger(int64_t a, int64_t b) { return a > b ? a : b; }
constexpr int64_t RoundUp(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
// The stride of a scratch tile whose rows hold `width` floats.
constexpr int64_t Stride(int64_t width) { return RoundUp(width, 16) + 16; }

// 2^x for x <= ~100, exactly 0 from 2^-127 down: a polynomial of degree 6 in the fraction, within
// 2 ULP. NaN stays NaN.
inline Vec Exp2(Vec x) {
  x = Max(Splat(-127.0f), x);
  const Vec n = Round(x), r = x - n;
  Vec p = Splat(1.5461444695e-4f);
  p = p * r + 1.3400428178e-3f;
  p = p * r + 9.6180566785e-3f;
  p = p * r + 5.5503272267e-2f;
  p = p * r + 2.4022650922e-1f;
  p = p * r + 6.9314720670e-1f;
  p = p * r + 1.0f;
  return p * Bits((ToInt(n) + 127) << 23);
}

// Rows of keys or values of one (batch row, key head), by key index: past rows, then fresh ones.
// Null where the view is absent, as gradients may be.
template <class T>
struct KeyRows {
  View<T> past, fresh;
  int64_t first, capacity, L;

  KeyRows(const AttentionArgs<T>& a, const View<T>& past_rows, const View<T>& fresh_rows,
          int64_t width, int64_t b, int64_t head)
      : past(past_rows), fresh(fresh_rows), first(a.past_first), capacity(a.past_capacity), L(a.L) {
    if (past) past.data += b * capacity * past.stride + head * width;
    if (fresh) fresh.data += b * a.T * fresh.stride + head * width;
  }
  T* Row(int64_t j) const {
    if (j >= L) return fresh ? fresh.Row(j - L) : nullptr;
    if (!past) return nullptr;
    const int64_t slot = first + j;
    return past.Row(slot < capacity ? slot : slot - capacity);
  }
};
template <class T>
KeyRows<T> KeysOf(const AttentionArgs<T>& a, int64_t b, int64_t head) {
  return {a, a.past_k, a.k, a.K, b, head};
}
template <class T>
KeyRows<T> ValuesOf(const AttentionArgs<T>& a, int64_t b, int64_t head) {
  return {a, a.past_v, a.v, a.V, b, head};
}

template <class T>
void Widened(const T* x, int64_t width, float factor, float* y) {
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) Store(y + i, Load(x + i) * factor);
  if (i < width) Store(y + i, Load(x + i, width - i) * factor, width - i);
}

template <class T>
void LoadKeys(const KeyRows<T>& rows, int64_t begin, int64_t end, int64_t width, float* y,
              int64_t ldy) {
  for (int64_t j = begin; j < end; ++j) Widened(rows.Row(j), width, 1, y + (j - begin) * ldy);
}

// A run of columns [begin, begin + n) of one (batch row, key head), and which keys each may see.
struct Columns {
  int64_t b, head, G, begin, n, padded;  // G heads share key head `head`; n rounded up to lanes
  int64_t first_key, last_key;           // over all columns; each sees [low, high]
  alignas(64) int32_t low[kColumns], high[kColumns];

  int64_t t(int64_t c) const { return (begin + c) / G; }
  int64_t h(int64_t c) const { return head * G + (begin + c) % G; }

  Columns() = default;
  template <class T>
  Columns(const AttentionArgs<T>& a, int64_t b_, int64_t head_, int64_t begin_, int64_t end)
      : b(b_),
        head(head_),
        G(a.H / a.Hkv),
        begin(begin_),
        n(end - begin_),
        padded(RoundUp(n, kLanes)) {
    first_key = a.L + a.T;
    last_key = 0;
    for (int64_t c = 0; c < padded; ++c) {
      const int64_t key = a.L + t(Smaller(c, n - 1));  // a padding column repeats the last one
      int64_t lowest = a.window > 0 ? Larger(key - a.window + 1, 0) : 0;
      if (a.start) lowest = Larger(lowest, a.L + a.start.data[b * a.T + key - a.L]);
      int64_t highest = key;
      if (a.after != 0) {
        highest = a.L - 1 + (a.end ? a.end.data[b * a.T + key - a.L] : a.T);
        if (a.after > 0) highest = Smaller(highest, key + a.after);
      }
      low[c] = static_cast<int32_t>(lowest);
      high[c] = static_cast<int32_t>(highest);
      first_key = Smaller(first_key, lowest);
      last_key = Larger(last_key, highest);
    }
  }

  // Sets [*c0, *c1) to whole vectors around the columns that see any key of [j0, j1).
  void Seeing(int64_t j0, int64_t j1, int64_t* c0, int64_t* c1) const {
    int64_t from = 0, to = n;
    while (from < to && (high[from] < j0 || low[from] >= j1)) ++from;
    while (from < to && (high[to - 1] < j0 || low[to - 1] >= j1)) --to;
    *c0 = from / kLanes * kLanes;
    *c1 = from < to ? RoundUp(to, kLanes) : *c0;
  }
  bool SeeAll(int64_t j0, int64_t j1, int64_t c0, int64_t c1) const {
    bool all = true;
    for (int64_t c = c0; c < Smaller(c1, n); ++c) all &= low[c] <= j0 && high[c] >= j1 - 1;
    return all;
  }
};

// factor x: rows of the columns (queries, outputs or their gradients, H*width wide) as a tile
// [padded, width], and transposed [width, padded]; padding columns are 0.
template <class T>
void LoadColumns(const Columns& columns, const View<T>& x, int64_t T_, int64_t width, float factor,
                 float* y, int64_t ldy, float* y_transposed) {
  for (int64_t c = 0; c < columns.n; ++c) {
    Widened(x.Row(columns.b * T_ + columns.t(c)) + columns.h(c) * width, width, factor,
            y + c * ldy);
  }
  for (int64_t c = columns.n; c < columns.padded; ++c) {
    for (int64_t i = 0; i < width; ++i) y[c * ldy + i] = 0;
  }
  Transpose(columns.padded, width, y, ldy, y_transposed, kTileStride);
}

// body(j0, j1, c0, c1, masked) over the keys [begin, end) in pieces, each with the columns that see
// any of it: whole tiles where all of these see all of it, thin ones elsewhere, so that little is
// computed to be masked.
template <class Body>
inline void ForVisible(const Columns& columns, int64_t begin, int64_t end, Body&& body) {
  for (int64_t j0 = begin; j0 < end;) {
    int64_t j1 = Smaller(j0 + kKeys, end), c0, c1;
    columns.Seeing(j0, j1, &c0, &c1);
    bool masked = c0 < c1 && !columns.SeeAll(j0, j1, c0, c1);
    if (masked) {
      j1 = Smaller(j0 + kEdgeKeys, end);
      columns.Seeing(j0, j1, &c0, &c1);
      masked = !columns.SeeAll(j0, j1, c0, c1);
    }
    if (c0 < c1) body(j0, j1, c0, c1, masked);
    j0 = j1;
  }
}

// Hands out one scratch block piece by piece, 64-byte aligned.
class Scratch {
 public:
  explicit Scratch(int64_t floats)
      : next_(static_cast<float*>(ThreadScratch(floats * static_cast<int64_t>(sizeof(float))))) {}
  float* Take(int64_t floats) {
    float* p = next_;
    next_ += RoundUp(floats, 16);
    return p;
  }

 private:
  float* next_;
};

// The factor on the queries that makes q . k the score in units of log 2, or, with a soft cap, the
// argument of tanh.
template <class T>
float QueryFactor(const AttentionArgs<T>& a) {
  return a.soft_cap > 0 ? a.scale / a.soft_cap : a.scale * kLog2E;
}

// The score where the columns from c on see key j, else minus infinity.
inline Vec Masked(Vec s, const Columns& columns, int64_t c, int64_t j) {
  const IVec low = *reinterpret_cast<const IVec*>(columns.low + c);
  const IVec high = *reinterpret_cast<const IVec*>(columns.high + c);
  const IVec key = ISplat(static_cast<int32_t>(j));
  return (low <= key) & (key <= high) ? s : Splat(-__builtin_inff());
}

}  // namespace
}  // namespace tessera::TESSERA_ISA

#endif  // TESSERA_KERNELS_ATTENTION_ATTENTION_TILE_H_
