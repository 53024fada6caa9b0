#include "kernels/experts/routing.h"

#include "core/parallel.h"
#include "kernels/cpu/vmath.h"

namespace tessera::TESSERA_ISA {
namespace {

constexpr float kLowest = -3.402823466e38f;
constexpr int64_t kExpertGroup = 16;  // experts a chunk of the scan over blocks

int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t PaddedExperts(int64_t E) { return (E + kLanes - 1) / kLanes * kLanes; }

// What one token adds to the sums of its block.
struct TokenSums {
  float lse, entropy;
};

// p becomes softmax(l), zero up to a whole vector.
TokenSums Softmax(const float* l, int64_t E, float* p) {
  Vec largest = Splat(kLowest);
  ForLanes(E, [&](int64_t i, int n) {
    const Vec v = Load(l + i, n);
    Store(p + i, Splat(kLowest));
    Store(p + i, v, n);
    largest = Max(Load(p + i), largest);
  });
  const float m = MaxOf(largest);
  Vec sum{}, weighted{};
  for (int64_t i = 0; i < E; i += kLanes) {
    const Vec d = Load(p + i) - m;
    const Vec e = Exp(d);
    Store(p + i, e);
    sum += e;
    weighted += e == 0.0f ? e : e * d;
  }
  const float s = Sum(sum), log_s = Log(Splat(s))[0];
  const float inverse = 1 / s;
  for (int64_t i = 0; i < E; i += kLanes) Store(p + i, Load(p + i) * inverse);
  return {m + log_s, log_s - Sum(weighted) * inverse};
}

// The k largest of l in descending order, the lower index first among equals. A logit that is NaN
// comes last, so that a broken model is seen in its loss.
void Choose(const float* l, int64_t E, int64_t k, float* left, int32_t* chosen) {
  ForLanes(E, [&](int64_t i, int n) {
    Vec v = Load(l + i, n);
    v = v >= kLowest ? v : Splat(kLowest);
    Store(left + i, Splat(-__builtin_inff()));
    Store(left + i, v, n);
  });
  for (int64_t j = 0; j < k; ++j) {
    Vec best = Load(left);
    for (int64_t i = kLanes; i < E; i += kLanes) best = Max(best, Load(left + i));
    const float value = MaxOf(best);
    int64_t e = 0;
    while (left[e] != value) ++e;
    left[e] = -__builtin_inff();
    chosen[j] = static_cast<int32_t>(e);
  }
}

// softmax over the chosen logits.
void ChosenSoftmax(const float* l, const int32_t* chosen, int64_t k, float* w) {
  const float m = l[chosen[0]];
  Vec sum{};
  for (int64_t j = 0; j < k; ++j) w[j] = l[chosen[j]] - m;
  ForLanes(k, [&](int64_t i, int n) {
    Store(w + i, Exp(Load(w + i, n)), n);
    sum += Load(w + i, n);
  });
  const float inverse = 1 / Sum(sum);
  for (int64_t j = 0; j < k; ++j) w[j] *= inverse;
}

// Weights, choices and sums of one block of tokens.
void RouteBlock(const RoutingArgs& a, int64_t block) {
  const int64_t padded = PaddedExperts(a.E);
  float* p = static_cast<float*>(ThreadScratch(2 * padded * 4));
  float* left = p + padded;
  int32_t* histogram = a.histogram + block * a.E;
  float* sums = a.partial + block * (a.E + 2);
  for (int64_t e = 0; e < a.E; ++e) histogram[e] = 0;
  for (int64_t e = 0; e < a.E + 2; ++e) sums[e] = 0;
  const int64_t end = Min(a.R, (block + 1) * kRoutingBlock);
  for (int64_t t = block * kRoutingBlock; t < end; ++t) {
    const float* l = a.logits + t * a.logits_stride;
    int32_t* chosen = a.expert + t * a.k;
    float* w = a.weight + t * a.k;
    const TokenSums token = Softmax(l, a.E, p);
    Choose(l, a.E, a.k, left, chosen);
    if (a.softmax == RouterSoftmax::kChosen) {
      ChosenSoftmax(l, chosen, a.k, w);
    } else {
      for (int64_t j = 0; j < a.k; ++j) w[j] = p[chosen[j]];
    }
    for (int64_t j = 0; j < a.k; ++j) {
      w[j] *= a.scale;
      ++histogram[chosen[j]];
    }
    a.lse[t] = token.lse;
    ForLanes(a.E, [&](int64_t i, int n) { Store(sums + i, Load(sums + i, n) + Load(p + i), n); });
    sums[a.E] += token.lse * token.lse;
    sums[a.E + 1] += token.entropy;
  }
}

// Turns the blocks' histograms of some experts into the slots before each block; the totals go to
// offsets[e + 1], and the blocks' sums are added into the first block's.
void ScanBlocks(const RoutingArgs& a, int64_t begin, int64_t end) {
  const int64_t blocks = RoutingBlocks(a.R);
  int32_t* total = a.offsets + 1;
  for (int64_t e = begin; e < end; ++e) total[e] = 0;
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t e = begin; e < end; ++e) {
      const int32_t here = a.histogram[b * a.E + e];
      a.histogram[b * a.E + e] = total[e];
      total[e] += here;
    }
  for (int64_t b = 1; b < blocks; ++b)
    for (int64_t e = begin; e < end; ++e) a.partial[e] += a.partial[b * (a.E + 2) + e];
}

// Loads, losses and statistics; offsets from totals.
void Conclude(const RoutingArgs& a) {
  const int64_t blocks = RoutingBlocks(a.R), slots = a.R * a.k;
  const float per_slot = 1 / static_cast<float>(slots), per_token = 1 / static_cast<float>(a.R);
  float z = 0, entropy = 0, balance = 0, most = 0;
  for (int64_t b = 0; b < blocks; ++b) {
    z += a.partial[b * (a.E + 2) + a.E];
    entropy += a.partial[b * (a.E + 2) + a.E + 1];
  }
  a.offsets[0] = 0;
  int32_t dropped = 0;
  for (int64_t e = 0; e < a.E; ++e) {
    const int64_t total = a.offsets[e + 1];
    a.load[e] = static_cast<float>(total) * per_slot;
    balance += a.load[e] * a.partial[e];
    most = a.load[e] > most ? a.load[e] : most;
    const int64_t kept = a.capacity > 0 ? Min(total, a.capacity) : total;
    a.first_drop[e] = dropped;
    dropped += static_cast<int32_t>(total - kept);
    a.offsets[e + 1] = a.offsets[e] + static_cast<int32_t>(kept);
  }
  for (int64_t e = 0; e < a.E; ++e) a.first_drop[e] += a.offsets[a.E];
  const float E = static_cast<float>(a.E);
  a.statistics[kBalanceLoss] = E * balance * per_token;
  a.statistics[kZLoss] = z * per_token;
  a.statistics[kMaxViolation] = E * most - 1;
  a.statistics[kDropped] = static_cast<float>(slots - a.offsets[a.E]) * per_slot;
  a.statistics[kEntropy] = entropy * per_token;
}

// Rows to the slots of one block. Each expert's counter starts at the slots before the block.
void PlaceBlock(const RoutingArgs& a, int64_t block) {
  int32_t* before = a.histogram + block * a.E;
  const int64_t end = Min(a.R, (block + 1) * kRoutingBlock);
  for (int64_t t = block * kRoutingBlock; t < end; ++t)
    for (int64_t j = 0; j < a.k; ++j) {
      const int64_t slot = t * a.k + j;
      const int32_t e = a.expert[slot], kept = a.offsets[e + 1] - a.offsets[e], place = before[e]++;
      const bool drop = place >= kept;
      const int32_t row = drop ? a.first_drop[e] + place - kept : a.offsets[e] + place;
      a.row_of[slot] = drop ? -1 : row;
      if (drop) a.weight[slot] = 0;
      a.slot_of[row] = static_cast<int32_t>(slot);
      a.token_of[row] = static_cast<int32_t>(t);
    }
}

void Routing(const RoutingArgs& a) {
  const int64_t blocks = RoutingBlocks(a.R);
  ParallelFor(blocks, [&](int64_t block) { RouteBlock(a, block); });
  ParallelRanges(a.E, kExpertGroup, [&](int64_t begin, int64_t end) { ScanBlocks(a, begin, end); });
  Conclude(a);
  ParallelFor(blocks, [&](int64_t block) { PlaceBlock(a, block); });
}

// dloss/dp without what all experts share, of the chosen experts of one token, added to g [E].
// With kChosen the weights depend on the chosen logits alone: their part goes to `direct`.
void AddWeightGrad(const RoutingGradArgs& a, int64_t t, float* g, float* direct) {
  const int64_t slot = t * a.k;
  const float* l = a.logits + t * a.logits_stride;
  if (a.softmax == RouterSoftmax::kAll) {
    for (int64_t j = 0; j < a.k; ++j)
      if (a.row_of[slot + j] >= 0) g[a.expert[slot + j]] += a.scale * a.dweight[slot + j];
    return;
  }
  float w[kMaxChoices];
  ChosenSoftmax(l, a.expert + slot, a.k, w);
  float shared = 0;
  for (int64_t j = 0; j < a.k; ++j)
    if (a.row_of[slot + j] >= 0) shared += w[j] * a.scale * a.dweight[slot + j];
  for (int64_t j = 0; j < a.k; ++j) {
    const float dw = a.row_of[slot + j] >= 0 ? a.scale * a.dweight[slot + j] : 0;
    direct[a.expert[slot + j]] = w[j] * (dw - shared);
  }
}

void RoutingGradToken(const RoutingGradArgs& a, int64_t t, float* p, float* g, float* direct) {
  const float* l = a.logits + t * a.logits_stride;
  float* d = a.dlogits + t * a.dlogits_stride;
  const float objective = a.loss_scale == nullptr ? 1 : a.loss_scale[0];
  const float balance = a.balance * objective * static_cast<float>(a.E) / static_cast<float>(a.R);
  const float z = a.z * objective * 2 * a.lse[t] / static_cast<float>(a.R);
  ForLanes(a.E, [&](int64_t i, int n) {
    Store(p + i, Exp(Load(l + i, n) - a.lse[t]), n);
    Store(g + i, Load(a.load + i, n) * balance);
    Store(direct + i, Vec{});
  });
  AddWeightGrad(a, t, g, direct);
  Vec sum{};
  ForLanes(a.E, [&](int64_t i, int n) { sum += Load(g + i, n) * Load(p + i, n); });
  const float shared = z - Sum(sum);
  ForLanes(a.E, [&](int64_t i, int n) {
    Vec v = Load(p + i) * (Load(g + i) + shared) + Load(direct + i);
    if (a.mode == Grad::kAccumulate) v += Load(d + i, n);
    Store(d + i, v, n);
  });
}

void RoutingGrad(const RoutingGradArgs& a) {
  const int64_t padded = PaddedExperts(a.E);
  ParallelRanges(a.R, kRoutingBlock, [&](int64_t begin, int64_t end) {
    float* p = static_cast<float*>(ThreadScratch(3 * padded * 4));
    for (int64_t t = begin; t < end; ++t) RoutingGradToken(a, t, p, p + padded, p + 2 * padded);
  });
}

}  // namespace

TESSERA_KERNEL_OF(RoutingArgs, Routing)
TESSERA_KERNEL_OF(RoutingGradArgs, RoutingGrad)

}  // namespace tessera::TESSERA_ISA
