#include "core/check.h"
#include "kernels/cuda/reduce.h"
#include "kernels/experts/routing.h"

// Routing without a word to the host and without atomic sums of floats: choices by a warp a token,
// then a counting sort by blocks of kRoutingBlock tokens: counts are integers, whose order does not
// matter, and places are found by one warp a block, which goes through its slots in order. So rows
// have the order of the slots, and the same bits each time.

namespace tessera::TESSERA_DEVICE {
namespace {

constexpr float kLowest = -3.402823466e38f;
constexpr int kWarps = 8, kThreads = 256;
// A lane has experts lane, lane + 32, ... and a bit of 64 for each of them that was chosen.
static_assert(RoutingArgs::kCudaExperts <= 64 * 32);

struct Best {
  float value;
  int32_t expert;
};
// The larger value; among equals the lower expert.
__device__ __forceinline__ Best Better(Best a, Best b) {
  return b.value > a.value || (b.value == a.value && b.expert < a.expert) ? b : a;
}

// Warp w of block i has token kWarps i + w. Lanes meet in shuffles only.
__global__ void __launch_bounds__(32 * kWarps) RouteKernel(RoutingArgs a, float* entropy) {
  const int64_t token = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (token >= a.R) return;
  const int lane = threadIdx.x % 32;
  const float* l = a.logits + token * a.logits_stride;
  float most = kLowest, sum = 0, weighted = 0;
  for (int64_t e = lane; e < a.E; e += 32) most = fmaxf(most, l[e]);
  most = WarpMax(most);
  for (int64_t e = lane; e < a.E; e += 32) {
    const float d = l[e] - most, p = expf(d);
    sum += p;
    weighted += p == 0 ? p : p * d;
  }
  sum = WarpSum(sum);
  weighted = WarpSum(weighted);
  const float log_sum = logf(sum);
  if (lane == 0) {
    a.lse[token] = most + log_sum;
    entropy[token] = log_sum - weighted / sum;
  }
  uint64_t taken = 0;
  float first = 0, chosen_sum = 0;
  for (int64_t j = 0; j < a.k; ++j) {
    Best best{-INFINITY, INT32_MAX};
    for (int64_t e = lane; e < a.E; e += 32) {
      // A logit that is NaN comes last, so that a broken model is seen in its loss.
      if ((taken >> (e / 32) & 1) == 0)
        best = Better(best, {l[e] >= kLowest ? l[e] : kLowest, static_cast<int32_t>(e)});
    }
    for (int x = 16; x > 0; x /= 2)
      best = Better(best, {__shfl_xor_sync(kAllLanes, best.value, x),
                           __shfl_xor_sync(kAllLanes, best.expert, x)});
    if (best.expert % 32 == lane) taken |= uint64_t{1} << (best.expert / 32);
    const float logit = l[best.expert];
    if (j == 0) first = logit;
    const float p = expf(logit - (a.softmax == RouterSoftmax::kAll ? most : first));
    chosen_sum += p;
    if (lane != 0) continue;
    a.expert[token * a.k + j] = best.expert;
    a.weight[token * a.k + j] = p;
  }
  const float scale = a.scale / (a.softmax == RouterSoftmax::kAll ? sum : chosen_sum);
  if (lane != 0) return;
  for (int64_t j = 0; j < a.k; ++j) a.weight[token * a.k + j] *= scale;
}

// Block b: counts the slots of each expert among the tokens of routing block b, a thread a slot;
// thread e adds up the probabilities of expert e; the last two sums are those of lse^2 and of the
// entropy. Barriers: the counts are zero before one is added to, and whole before they are read.
__global__ void __launch_bounds__(kThreads) CountKernel(RoutingArgs a, const float* entropy) {
  const int64_t block = blockIdx.x, begin = block * kRoutingBlock;
  const int64_t end = begin + kRoutingBlock < a.R ? begin + kRoutingBlock : a.R;
  float* sums = a.partial + block * (a.E + 2);
  TESSERA_SHARED(int32_t[RoutingArgs::kCudaExperts], counts);
  for (int64_t e = threadIdx.x; e < a.E; e += kThreads) counts[e] = 0;
  __syncthreads();
  for (int64_t slot = begin * a.k + threadIdx.x; slot < end * a.k; slot += kThreads)
    atomicAdd(&counts[a.expert[slot]], 1);
  __syncthreads();
  for (int64_t e = threadIdx.x; e < a.E + 2; e += kThreads) {
    float sum = 0;
    for (int64_t t = begin; t < end; ++t) {
      if (e >= a.E) {
        sum += e == a.E ? a.lse[t] * a.lse[t] : entropy[t];
        continue;
      }
      sum += expf(a.logits[t * a.logits_stride + e] - a.lse[t]);
    }
    sums[e] = sum;
    if (e < a.E) a.histogram[block * a.E + e] = counts[e];
  }
}

// One block. Thread e turns expert e's counts into the slots before each routing block and adds up
// the blocks' sums, several of which are read before they are needed; after the barrier the first
// thread draws the conclusions, a line an expert, from shared memory.
__global__ void __launch_bounds__(kThreads) ConcludeKernel(RoutingArgs a) {
  constexpr int kAhead = 8, kMost = RoutingArgs::kCudaExperts;
  TESSERA_SHARED(float[kMost + 2], sums);
  TESSERA_SHARED(int32_t[kMost], totals);
  TESSERA_SHARED(int32_t[kMost + 1], offsets);
  TESSERA_SHARED(int32_t[kMost], first_drop);
  const int64_t blocks = RoutingBlocks(a.R), slots = a.R * a.k;
  for (int64_t e = threadIdx.x; e < a.E + 2; e += kThreads) {
    float sum = 0;
    int32_t total = 0;
    for (int64_t b0 = 0; b0 < blocks; b0 += kAhead) {
      float part[kAhead];
      int32_t here[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const int64_t b = b0 + i;
        part[i] = b < blocks ? a.partial[b * (a.E + 2) + e] : 0;
        here[i] = b < blocks && e < a.E ? a.histogram[b * a.E + e] : 0;
      }
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        sum += part[i];
        if (b0 + i < blocks && e < a.E) a.histogram[(b0 + i) * a.E + e] = total;
        total += here[i];
      }
    }
    sums[e] = sum;
    if (e < a.E) totals[e] = total;
  }
  __syncthreads();
  const float per_slot = 1 / static_cast<float>(slots), per_token = 1 / static_cast<float>(a.R);
  if (threadIdx.x == 0) {
    float balance = 0, most = 0;
    int32_t dropped = 0;
    offsets[0] = 0;
    for (int64_t e = 0; e < a.E; ++e) {
      const float load = static_cast<float>(totals[e]) * per_slot;
      balance += load * sums[e];
      most = fmaxf(most, load);
      const bool full = a.capacity > 0 && a.capacity < totals[e];
      const int32_t kept = full ? static_cast<int32_t>(a.capacity) : totals[e];
      first_drop[e] = dropped;
      dropped += totals[e] - kept;
      offsets[e + 1] = offsets[e] + kept;
    }
    const auto E = static_cast<float>(a.E);
    a.statistics[kBalanceLoss] = E * balance * per_token;
    a.statistics[kZLoss] = sums[a.E] * per_token;
    a.statistics[kMaxViolation] = E * most - 1;
    a.statistics[kDropped] = static_cast<float>(slots - offsets[a.E]) * per_slot;
    a.statistics[kEntropy] = sums[a.E + 1] * per_token;
  }
  __syncthreads();
  if (threadIdx.x == 0) a.offsets[0] = 0;
  for (int64_t e = threadIdx.x; e < a.E; e += kThreads) {
    a.load[e] = static_cast<float>(totals[e]) * per_slot;
    a.offsets[e + 1] = offsets[e + 1];
    a.first_drop[e] = first_drop[e] + offsets[a.E];
  }
}

// Block b, a warp: gives rows to the slots of the tokens of routing block b, 32 at a time. Lanes
// with the same expert share its place in `next`, each after those below it, and the last of them
// moves it on.
__global__ void __launch_bounds__(32) PlaceKernel(RoutingArgs a) {
  TESSERA_SHARED(int32_t[RoutingArgs::kCudaExperts], next);
  const int lane = static_cast<int>(threadIdx.x);
  const int64_t block = blockIdx.x, begin = block * kRoutingBlock;
  const int64_t end = begin + kRoutingBlock < a.R ? begin + kRoutingBlock : a.R;
  for (int64_t e = lane; e < a.E; e += 32) next[e] = a.histogram[block * a.E + e];
  for (int64_t first = begin * a.k; first < end * a.k; first += 32) {
    __syncwarp();  // the places that the slots before left
    const int64_t slot = first + lane;
    const int32_t e = slot < end * a.k ? a.expert[slot] : -1;
    const uint32_t same = __match_any_sync(kAllLanes, e);
    const int before = __popc(same & ((1u << lane) - 1));
    const int32_t place = e < 0 ? 0 : next[e] + before;
    __syncwarp();  // all have read
    if (e < 0) continue;
    if (before + 1 == __popc(same)) next[e] = place + 1;
    const int32_t kept = a.offsets[e + 1] - a.offsets[e];
    const bool drop = place >= kept;
    const int32_t row = drop ? a.first_drop[e] + place - kept : a.offsets[e] + place;
    a.row_of[slot] = drop ? -1 : row;
    if (drop) a.weight[slot] = 0;
    a.slot_of[row] = static_cast<int32_t>(slot);
    a.token_of[row] = static_cast<int32_t>(slot / a.k);
  }
}

void Routing(const RoutingArgs& a) {
  TESSERA_CHECK(a.CudaLimit().empty(), "%s", a.CudaLimit().c_str());
  const auto tokens = static_cast<unsigned>(CeilDivide(a.R, kWarps));
  const auto blocks = static_cast<unsigned>(RoutingBlocks(a.R));
  const Scratch scratch(a.CudaScratch());
  float* const entropy = scratch.floats();
  Launch(RouteKernel, dim3{tokens}, dim3{32 * kWarps}, 0, a, entropy);
  Launch(CountKernel, dim3{blocks}, dim3{kThreads}, 0, a, entropy);
  Launch(ConcludeKernel, dim3{1}, dim3{kThreads}, 0, a);
  Launch(PlaceKernel, dim3{blocks}, dim3{32}, 0, a);
}

// A warp a token, its lanes the experts. What a choice adds to dL/dp of its expert, or with kChosen
// to dL/dlogit, each lane finds by going through the k choices.
__global__ void __launch_bounds__(32 * kWarps) RoutingGradKernel(RoutingGradArgs a) {
  const int64_t token = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (token >= a.R) return;
  const int lane = threadIdx.x % 32;
  const bool all = a.softmax == RouterSoftmax::kAll;
  const float* l = a.logits + token * a.logits_stride;
  const int32_t *chosen = a.expert + token * a.k, *row = a.row_of + token * a.k;
  const float* dweight = a.dweight + token * a.k;
  const float lse = a.lse[token];
  const float objective = a.loss_scale == nullptr ? 1 : a.loss_scale[0];
  const float balance = a.balance * objective * static_cast<float>(a.E) / static_cast<float>(a.R);
  const float z = a.z * objective * 2 * lse / static_cast<float>(a.R);
  // Of the softmax over the chosen logits: its sum, and sum_j w_j dw_j.
  float sum = 0, along = 0;
  for (int64_t j = 0; !all && j < a.k; ++j) {
    const float p = expf(l[chosen[j]] - l[chosen[0]]);
    sum += p;
    if (row[j] >= 0) along += p * a.scale * dweight[j];
  }
  along = all ? 0 : along / sum;
  float inner = 0;
  const auto of_weights = [&](int64_t e) {  // dL/dp_e, or dL/dl_e with kChosen
    for (int64_t j = 0; j < a.k; ++j) {
      if (chosen[j] != e) continue;
      const float dw = row[j] >= 0 ? a.scale * dweight[j] : 0;
      return all ? dw : expf(l[e] - l[chosen[0]]) / sum * (dw - along);
    }
    return 0.0f;
  };
  for (int64_t e = lane; e < a.E; e += 32)
    inner += expf(l[e] - lse) * (a.load[e] * balance + (all ? of_weights(e) : 0));
  inner = WarpSum(inner);
  for (int64_t e = lane; e < a.E; e += 32) {
    const float of_choice = of_weights(e);
    const float g = a.load[e] * balance + (all ? of_choice : 0);
    PutGrad(a.dlogits + token * a.dlogits_stride + e,
            expf(l[e] - lse) * (g + z - inner) + (all ? 0 : of_choice), a.mode);
  }
}

void RoutingGrad(const RoutingGradArgs& a) {
  Launch(RoutingGradKernel, dim3{static_cast<unsigned>(CeilDivide(a.R, kWarps))}, dim3{32 * kWarps},
         0, a);
}

}  // namespace

TESSERA_DEVICE_KERNEL_OF(RoutingArgs, Routing)
TESSERA_DEVICE_KERNEL_OF(RoutingGradArgs, RoutingGrad)

}  // namespace tessera::TESSERA_DEVICE
