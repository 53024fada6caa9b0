#ifndef TESSERA_KERNELS_EXPERTS_ROUTING_H_
#define TESSERA_KERNELS_EXPERTS_ROUTING_H_

#include <string>

#include "kernels/cost.h"

// Top-k routing of R tokens to E experts, k an expert choice each, and the order in which grouped
// products take them. With logits l, p = softmax(l) over all experts, and the chosen experts
// e_0 .. e_{k-1} of a token in descending order of l (ties: the lower expert first):
//   kAll     w_j = scale p[e_j]                          Fedus et al. 2021, arXiv:2101.03961, eq. 2
//   kChosen  w_j = scale softmax(l[e_0..e_{k-1}])_j      Jiang et al. 2024, arXiv:2401.04088, eq. 1
// (kChosen is also kAll divided by its sum.) Slot s = token * k + j is the j-th choice of a token.
// Row r numbers the kept slots by expert, and within an expert by slot: an expert takes its first
// `capacity` slots and drops the others, which get weight 0. Rows from offsets[E] on are the
// dropped slots, in the same order, and belong to no expert.
//
// Two losses join the objective, their gradients in RoutingGradArgs:
//   balance = E sum_e f_e P_e,  f_e = share of the R k choices that expert e got, before drops,
//             P_e = mean over tokens of p_e                            arXiv:2101.03961, eq. 4-6
//   z       = mean over tokens of logsumexp(l)^2                       arXiv:2202.08906, eq. 5
// f is a constant to the derivative.

namespace tessera {

enum class RouterSoftmax : uint8_t { kAll, kChosen };

inline constexpr int64_t kMaxChoices = 64;    // k
inline constexpr int64_t kRoutingBlock = 64;  // tokens a block of the counting sort
constexpr int64_t RoutingBlocks(int64_t R) { return (R + kRoutingBlock - 1) / kRoutingBlock; }

// Where each statistic stands in RoutingArgs::statistics.
enum RoutingStatistic : int64_t {
  kBalanceLoss,
  kZLoss,
  kMaxViolation,  // (max load - mean load) / mean load        Wang et al. 2024, arXiv:2408.15664
  kDropped,       // share of the R k choices without a row
  kEntropy,       // mean over tokens of the entropy of p, in nats
  kRoutingStatistics
};

struct RoutingArgs {
  static constexpr char kName[] = "routing";
  const float* logits;  // [R,E]
  int64_t logits_stride;
  int64_t R, E, k;
  RouterSoftmax softmax;
  float scale = 1;
  int64_t capacity = 0;  // slots an expert takes; 0: all that choose it
  float* weight;         // [R,k]
  int32_t* expert;       // [R,k]
  float* lse;            // [R]: logsumexp of all logits
  int32_t* offsets;      // [E+1]: expert e has rows [offsets[e], offsets[e+1])
  int32_t* row_of;       // [R,k]: the row of a slot, -1 if dropped
  int32_t* slot_of;      // [R k]: the slot of a row
  int32_t* token_of;     // [R k]: slot / k
  float* load;           // [E]: f
  float* statistics;     // [kRoutingStatistics]
  // Workspace.
  int32_t* histogram;   // [RoutingBlocks(R), E]
  int32_t* first_drop;  // [E]: the row of an expert's first dropped slot
  float* partial;       // [RoutingBlocks(R), E + 2]

  // Why the CUDA kernel cannot, or nothing.
  static constexpr int64_t kCudaExperts = 2048;
  std::string CudaLimit() const {
    if (E <= kCudaExperts) return "";
    return std::to_string(E) + " experts; the CUDA kernel of routing takes up to " +
           std::to_string(kCudaExperts);
  }
  int64_t CudaScratch() const { return R; }  // what it asks for, in floats: a token's entropy

  Cost cost() const {
    // A logit: its difference from the largest, exp, sum, p, entropy, and k comparisons.
    return {.flops = R * E * (6 + k), .bytes = 4 * (R * E + 5 * R * k + R + 2 * E)};
  }
};

// dlogits = the vjp of `weight`, plus the gradients of the two losses times their coefficients.
struct RoutingGradArgs {
  static constexpr char kName[] = "routing_grad";
  const float* logits;  // [R,E]
  int64_t logits_stride;
  const int32_t* expert;  // [R,k]
  const int32_t* row_of;  // [R,k]
  const float* lse;       // [R]
  const float* load;      // [E]
  const float* dweight;   // [R,k]
  int64_t R, E, k;
  RouterSoftmax softmax;
  float scale = 1;
  float balance = 0, z = 0;           // coefficients of the two losses
  const float* loss_scale = nullptr;  // [1], of the objective; null: 1
  float* dlogits;                     // [R,E]
  int64_t dlogits_stride;
  Grad mode;

  Cost cost() const {
    const int64_t passes = mode == Grad::kAccumulate ? 2 : 1;
    return {.flops = R * E * 7 + R * k * 6, .bytes = 4 * (R * E * (1 + passes) + 3 * R * k + R)};
  }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_EXPERTS_ROUTING_H_
