#ifndef TESSERA_KERNELS_LAYOUT_CHOOSE_H_
#define TESSERA_KERNELS_LAYOUT_CHOOSE_H_

#include <string>

#include "core/dtype.h"
#include "kernels/view.h"

// The k largest of N scores, for routers over experts and over tokens, hashing, memories.

namespace tessera {

// kLast: of the columns of each row, x [R,N] with R = outer. kTime: of the tokens of each sequence,
// for each column, x [outer, N, inner]: an expert's choice of tokens (Zhou et al. 2022,
// arXiv:2202.09368, eq. 1) or a layer's (Raposo et al. 2024, arXiv:2404.02258, section 3.3).
enum class ChooseAxis : uint8_t { kLast, kTime };
enum class ChooseOrder : uint8_t {
  kByScore,  // the largest first
  kByPlace,  // as they stand in x
};

// index[o,c,j] is the place in [0, N) of the j-th of the k largest of x + bias among those of
// (o, c), and value[o,c,j] is x there. Among equal scores the lower place comes first; NaN is
// smaller than every number. The gradient of x is that of the values at the chosen places and zero
// elsewhere; the bias decides and has none (Wang et al. 2024, arXiv:2408.15664).
//
// With groups, N / groups neighbours each, the choices are of the kept_groups best alone, those
// with the largest sums of their two best scores (DeepSeek-V3, arXiv:2412.19437, section 2.1.2);
// among equal sums the lower group comes first.
template <class T_>
struct ChooseArgs {
  static constexpr char kName[] = "choose", kGradName[] = "choose_grad";
  View<T_> x;           // kLast: [outer,N]; kTime: [outer,N,inner]
  View<float> bias;     // [N], or none
  View<int32_t> index;  // [outer,inner,k]
  View<T_> value;       // [outer,inner,k]
  int64_t outer, N, inner, k;
  int64_t groups = 1, kept_groups = 1;
  ChooseAxis axis = ChooseAxis::kLast;
  ChooseOrder order = ChooseOrder::kByScore;
  template <class F>
  void Tensors(F&& f) {
    axis == ChooseAxis::kLast ? f.In("x", x, {outer, N}, kUnread)
                              : f.In("x", x, {outer, N, inner}, kUnread);
    f.In("bias", bias, {N}, kOptional | kConstant);
    f.Out("index", index, {outer, inner, k}, kReread | kDense);
    f.Out("value", value, {outer, inner, k}, kDense);
  }
  // Elements of x from (o, 0, c) on, and from one of its places to the next.
  constexpr int64_t First(int64_t o, int64_t c) const {
    return axis == ChooseAxis::kLast ? o * x.stride : o * N * x.stride + c;
  }
  constexpr int64_t Step(int64_t stride) const { return axis == ChooseAxis::kLast ? 1 : stride; }

  constexpr int64_t group_size() const { return N / groups; }
  constexpr int64_t candidates() const { return kept_groups * group_size(); }

  // Why the CUDA kernel cannot, or nothing.
  static constexpr int64_t kCudaSorted = 8192, kCudaGroups = 128;
  std::string CudaLimit() const {
    if (groups > kCudaGroups)
      return std::to_string(groups) + " groups of scores; the CUDA kernel takes up to " +
             std::to_string(kCudaGroups);
    if (order == ChooseOrder::kByPlace || k <= kCudaSorted) return "";
    return std::to_string(k) + " choices by score; the CUDA kernel sorts up to " +
           std::to_string(kCudaSorted);
  }

  Cost cost() const {
    // Each score is compared once a bit of the threshold; for the best of its group, twice.
    return {.flops = outer * inner * (candidates() * 32 + (groups > 1 ? 2 * N : 0)),
            .bytes = bytes()};
  }
  Cost grad_cost() const { return {.bytes = bytes()}; }
  int64_t bytes() const {
    return outer * inner * (N * int64_t{sizeof(T_)} + k * (4 + int64_t{sizeof(T_)}));
  }
};

// The two best of scores that come one after another, added; of a single one, that one. NaN where
// one of them is.
struct TwoBest {
  float first = -__builtin_inff(), second = -__builtin_inff();
  int64_t count = 0;
  bool broken = false;
  constexpr void Add(float score) {
    ++count;
    broken = broken || score != score;
    const float lower = score > first ? first : score;
    first = score > first ? score : first;
    second = lower > second ? lower : second;
  }
  constexpr float Sum() const {
    return broken ? __builtin_nanf("") : count == 1 ? first : first + second;
  }
};

// A float as an integer of the same order; 0 for NaN, which no number has.
constexpr uint32_t OrderOf(uint32_t bits) {
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return nan ? 0 : (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}

}  // namespace tessera

#endif  // TESSERA_KERNELS_LAYOUT_CHOOSE_H_
