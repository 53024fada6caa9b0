#include "kernels/pointwise/noise.h"

#include <cmath>

#include "core/parallel.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/vmath.h"

namespace tessera::TESSERA_ISA {
namespace {

constexpr int64_t kBatch = 256;  // words that are drawn before they are used

uint32_t StepOf(const View<const int32_t>& step) {
  return step ? static_cast<uint32_t>(step.data[0]) : 0;
}

// Words [4 block, 4 block + kBatch) of a draw. Blocks stand beside one another, so that the
// compiler multiplies several at once.
void Draw(const NoiseKey& key, uint32_t step, uint64_t block, uint32_t* word) {
  for (int64_t i = 0; i < kBatch / 4; ++i) {
    const Philox4 four = PhiloxBlock(key, step, block + static_cast<uint64_t>(i));
    for (int j = 0; j < 4; ++j) word[4 * i + j] = four.word[j];
  }
}

// fill(words, values) makes kBatch numbers of as many words; use(row, column, values, n) is given
// those of each piece of a row of [rows, C].
template <class Fill, class Use>
void ForDraws(int64_t rows, int64_t C, const NoiseKey& key, uint32_t step, Fill&& fill, Use&& use) {
  ParallelRanges(rows * C, 64 * kBatch, [&](int64_t begin, int64_t end) {
    uint32_t word[kBatch];
    float value[kBatch + kLanes];
    for (int64_t first = begin; first < end; first += kBatch) {
      Draw(key, step, static_cast<uint64_t>(first / 4), word);
      fill(word, value);
      const int64_t last = first + kBatch < end ? first + kBatch : end;
      for (int64_t i = first; i < last;) {
        const int64_t row = i / C, c = i % C, n = C - c < last - i ? C - c : last - i;
        use(row, c, value + (i - first), n);
        i += n;
      }
    }
  });
}

// In (0, 1): the middle of one of 2^24 equal parts, which a float holds exactly.
float Uniform(uint32_t word) { return (static_cast<float>(word >> 8) + 0.5f) * 0x1p-24f; }

// kBatch numbers of a kind; of normal ones two from two words (Box & Muller 1958).
void Fill(NoiseKind kind, const uint32_t* word, float* value) {
  for (int64_t i = 0; i < kBatch; ++i) value[i] = Uniform(word[i]);
  if (kind == NoiseKind::kGumbel)
    ForLanes(kBatch, [&](int64_t i, int) { Store(value + i, -Log(-Log(Load(value + i)))); });
  if (kind == NoiseKind::kNormal)
    for (int64_t i = 0; i < kBatch; i += 2) {
      const float radius = std::sqrt(-2 * std::log(value[i]));
      const float angle = 6.283185307f * value[i + 1];
      value[i] = radius * std::cos(angle);
      value[i + 1] = radius * std::sin(angle);
    }
}

template <class T>
void Noise(const NoiseArgs<T>& a) {
  ForDraws(
      a.rows, a.C, a.key, StepOf(a.step),
      [&](const uint32_t* word, float* value) { Fill(a.kind, word, value); },
      [&](int64_t row, int64_t c, const float* value, int64_t n) {
        T* y = a.y.Row(row) + c;
        ForLanes(n, [&](int64_t i, int k) { Store(y + i, Load(value + i, k), k); });
      });
}

template <class T>
void Drop(const DropoutArgs<T>& a, const View<T>& from, const View<T>& to) {
  const uint32_t least = a.Threshold();
  const float scale = 1 / (1 - a.rate);
  ForDraws(
      a.rows, a.C, a.key, StepOf(a.step),
      [&](const uint32_t* word, float* factor) {
        for (int64_t i = 0; i < kBatch; ++i) factor[i] = word[i] >= least ? scale : 0;
      },
      [&](int64_t row, int64_t c, const float* factor, int64_t n) {
        const T* x = from.Row(row) + c;
        T* y = to.Row(row) + c;
        ForLanes(n, [&](int64_t i, int k) {
          PutGrad(y + i, Load(x + i, k) * Load(factor + i, k), k, to.mode);
        });
      });
}

template <class T>
void Dropout(const DropoutArgs<T>& a) {
  Drop(a, a.x, a.y);
}
template <class T>
void DropoutGrad(const Gradient<DropoutArgs<T>>& a) {
  Drop(a.forward, a.d.y, a.d.x);
}

}  // namespace

TESSERA_KERNEL(Noise)
TESSERA_KERNEL_WITH_GRAD(Dropout)

}  // namespace tessera::TESSERA_ISA
