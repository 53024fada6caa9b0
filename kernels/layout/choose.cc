#include "kernels/layout/choose.h"

#include <bit>

#include "core/parallel.h"
#include "kernels/cpu/rows.h"

namespace tessera::TESSERA_ISA {
namespace {

constexpr int64_t kItems = 16;  // of work in a chunk

int64_t CountFrom(const uint32_t* key, int64_t N, uint32_t least) {
  int64_t count = 0;
  for (int64_t i = 0; i < N; ++i) count += key[i] >= least ? 1 : 0;
  return count;
}

// The k-th largest key, a bit at a time: no sorting, and N need not fit in registers.
uint32_t Threshold(const uint32_t* key, int64_t N, int64_t k) {
  uint32_t least = 0;
  for (int bit = 31; bit >= 0; --bit) {
    const uint32_t next = least | (uint32_t{1} << bit);
    if (CountFrom(key, N, next) >= k) least = next;
  }
  return least;
}

// The places of the k largest keys as they stand, of equal ones the first.
void PlacesOf(const uint32_t* key, int64_t N, int64_t k, int32_t* place) {
  const uint32_t least = Threshold(key, N, k);
  int64_t ties = k - (least == UINT32_MAX ? 0 : CountFrom(key, N, least + 1)), j = 0;
  for (int64_t i = 0; i < N && j < k; ++i)
    if (key[i] > least || (key[i] == least && ties-- > 0)) place[j++] = static_cast<int32_t>(i);
}

// How many of the k chosen come before the j-th when the largest are first.
int64_t Rank(const uint32_t* key, const int32_t* place, int64_t k, int64_t j) {
  const uint32_t own = key[place[j]];
  int64_t rank = 0;
  for (int64_t i = 0; i < k; ++i) {
    const uint32_t other = key[place[i]];
    rank += other > own || (other == own && i < j) ? 1 : 0;
  }
  return rank;
}

uint32_t KeyOf(float score) { return OrderOf(std::bit_cast<uint32_t>(score)); }

// The groups that are kept, as they stand; `key` is scratch for one of each group.
template <class Score>
void BestGroups(int64_t groups, int64_t size, int64_t kept, Score score, uint32_t* key,
                int32_t* group) {
  for (int64_t g = 0; g < groups; ++g) {
    TwoBest best;
    for (int64_t i = g * size; i < (g + 1) * size; ++i) best.Add(score(i));
    key[g] = KeyOf(best.Sum());
  }
  PlacesOf(key, groups, kept, group);
}

template <class T>
void Choose(const ChooseArgs<T>& a) {
  const int64_t step = a.Step(a.x.stride), n = a.candidates(), size = a.group_size();
  ParallelRanges(a.outer * a.inner, kItems, [&](int64_t begin, int64_t end) {
    auto* const key = static_cast<uint32_t*>(ThreadScratch((a.N + a.k + a.groups) * 4));
    auto* const place = reinterpret_cast<int32_t*>(key + a.N);
    int32_t* const group = place + a.k;
    for (int64_t item = begin; item < end; ++item) {
      const T* x = a.x.data + a.First(item / a.inner, item % a.inner);
      const auto score = [&](int64_t i) {
        return static_cast<float>(x[i * step]) + (a.bias ? a.bias.data[i] : 0);
      };
      // Candidates are counted through the groups that are kept.
      if (a.groups > 1) {
        BestGroups(a.groups, size, a.kept_groups, score, key, group);
        for (int64_t i = 0; i < n; ++i) key[i] = KeyOf(score(group[i / size] * size + i % size));
      } else {
        for (int64_t i = 0; i < n; ++i) key[i] = KeyOf(score(i));
      }
      PlacesOf(key, n, a.k, place);
      for (int64_t j = 0; j < a.k; ++j) {
        const int64_t at = a.order == ChooseOrder::kByPlace ? j : Rank(key, place, a.k, j);
        const int64_t i = place[j], of = a.groups > 1 ? group[i / size] * size + i % size : i;
        a.index.data[item * a.k + at] = static_cast<int32_t>(of);
        a.value.data[item * a.k + at] = x[of * step];
      }
    }
  });
}

template <class T>
void ChooseGrad(const Gradient<ChooseArgs<T>>& a) {
  const ChooseArgs<T>& f = a.forward;
  ChooseArgs<T> to = f;
  to.x = a.d.x;
  const int64_t step = to.Step(to.x.stride);
  ParallelRanges(f.outer * f.inner, kItems, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      T* dx = to.x.data + to.First(item / f.inner, item % f.inner);
      if (to.x.mode == Grad::kOverwrite)
        for (int64_t i = 0; i < f.N; ++i) dx[i * step] = T(0.0f);
      for (int64_t j = 0; j < f.k; ++j) {
        T& d = dx[f.index.data[item * f.k + j] * step];
        d = T(static_cast<float>(d) + static_cast<float>(a.d.value.data[item * f.k + j]));
      }
    }
  });
}

}  // namespace

TESSERA_KERNEL_WITH_GRAD(Choose)

}  // namespace tessera::TESSERA_ISA
