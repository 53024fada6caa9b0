#ifndef TESSERA_TESTS_DEVICE_SIMT_KERNELS_H_
#define TESSERA_TESTS_DEVICE_SIMT_KERNELS_H_

#include "kernels/cuda/device.h"

// Kernels that use every instruction of kernels/cuda/device.h, and some that misuse them.

namespace tessera::simt_kernels {

enum class Flaw { kNone, kNoBarrier, kNoWait, kNoCommit };

__device__ __forceinline__ float WarpSum(float x) {
  for (int flip = 16; flip > 0; flip /= 2) x += __shfl_xor_sync(~0u, x, flip);
  return x;
}

// *sum += x[0..n). Each warp adds up its threads' parts; the barrier lets the first see them all.
template <Flaw kFlaw>
__global__ void __launch_bounds__(256) Sum(const float* x, int n, float* sum) {
  TESSERA_SHARED(float[32], parts);
  float part = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
    part += x[i];
  part = WarpSum(part);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = part;
  if (kFlaw != Flaw::kNoBarrier) __syncthreads();
  if (threadIdx.x >= 32) return;
  part = WarpSum(threadIdx.x < blockDim.x / 32 ? parts[threadIdx.x] : 0);
  if (threadIdx.x == 0) atomicAdd(sum, part);
}

// y[t] = x[0] + ... + x[t], by a block of as many threads as values. The first barrier of a round
// keeps sums of the last one until they were read, the second shows the new ones.
template <Flaw kFlaw>
__global__ void Scan(const int* x, int* y) {
  TESSERA_DYNAMIC_SHARED(int, sums);
  const int t = static_cast<int>(threadIdx.x), n = static_cast<int>(blockDim.x);
  sums[t] = x[t];
  __syncthreads();
  for (int distance = 1; distance < n; distance *= 2) {
    const int before = t >= distance ? sums[t - distance] : 0;
    if (kFlaw != Flaw::kNoBarrier) __syncthreads();
    sums[t] += before;
    __syncthreads();
  }
  y[t] = sums[t];
}

// counts[v] += how often v stands in x[0..n). The lanes of a warp that have the same value add
// once.
__global__ void Count(const int* x, int n, int* counts) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const int value = i < n ? x[i] : -1;
  const uint32_t same = __match_any_sync(~0u, value);
  const bool first = __ffs(static_cast<int>(same)) - 1 == static_cast<int>(threadIdx.x % 32);
  if (value >= 0 && first) atomicAdd(&counts[value], __popc(same));
}

// Every vote and shuffle of one warp, lane l's into out[l, 0..16).
constexpr int kVotes = 16;
__global__ void Votes(const int* x, int* out) {
  const int lane = static_cast<int>(threadIdx.x), v = x[lane];
  int all;
  const uint32_t equal = __match_all_sync(~0u, 7, &all);
  int* o = out + lane * kVotes;
  o[0] = static_cast<int>(__ballot_sync(~0u, v > 0));
  o[1] = __any_sync(~0u, v > 90);
  o[2] = __all_sync(~0u, v > 90);
  o[3] = __shfl_sync(~0u, v, 5, 8);
  o[4] = __shfl_up_sync(~0u, v, 3);
  o[5] = __shfl_down_sync(~0u, v, 3, 16);
  o[6] = __shfl_xor_sync(~0u, v, 1);
  o[7] = __syncthreads_count(v > 0);
  o[8] = __syncthreads_or(v > 90);
  o[9] = __syncthreads_and(v > -100);
  o[10] = __reduce_add_sync(~0u, v);
  o[11] = __reduce_max_sync(~0u, v);
  o[12] = static_cast<int>(equal) + all;
  // Halves of a warp that meet on their own.
  if (lane < 16)
    o[13] = __shfl_sync(0x0000ffffu, v, 3);
  else
    o[13] = __shfl_sync(0xffff0000u, v, 19);
  o[14] = __reduce_min_sync(~0u, v);
  o[15] = __reduce_xor_sync(~0u, v);
}

// y[16, 8] = a[16, K] b[K, 8], all row-major, by one warp: each step copies 16 columns of a and 16
// rows of b while the last step's are multiplied. b's rows are loaded transposed, as mma wants it.
template <Flaw kFlaw>
__global__ void MultiplyBf16(const bf16* a, const bf16* b, float* y, int K) {
  TESSERA_DYNAMIC_SHARED(bf16, tiles);
  constexpr int kStride = 16 + 8;  // of a's rows; keeps ldmatrix clear of bank conflicts
  constexpr int kStep = 16 * kStride + 16 * 8;
  const int lane = static_cast<int>(threadIdx.x), steps = K / 16;
  const auto copy = [&](int step) {
    bf16 *to_a = tiles + step % 2 * kStep, *to_b = to_a + 16 * kStride;
    cp_async16(to_a + lane / 2 * kStride + lane % 2 * 8,
               a + lane / 2 * K + step * 16 + lane % 2 * 8);
    if (lane < 16) cp_async16(to_b + lane * 8, b + (step * 16 + lane) * 8);
  };
  float d[4] = {};
  copy(0);
  cp_async_commit();
  for (int step = 0; step < steps; ++step) {
    if (step + 1 < steps) copy(step + 1);
    if (kFlaw != Flaw::kNoCommit) cp_async_commit();
    if (kFlaw != Flaw::kNoWait) cp_async_wait<1>();
    __syncwarp();
    const bf16 *tile_a = tiles + step % 2 * kStep, *tile_b = tile_a + 16 * kStride;
    uint32_t ra[4], rb[4];
    ldmatrix_x4(ra, tile_a + lane % 16 * kStride + lane / 16 * 8);
    ldmatrix_x4_trans(rb, tile_b + lane % 16 * 8);
    mma_bf16(d, ra, rb[0], rb[1]);
    __syncwarp();
  }
  for (int i = 0; i < 4; ++i) y[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = d[i];
}

// y[16, 8] = a[16, 8] b[8, 8] in tf32, by one warp.
__global__ void MultiplyTf32(const float* a, const float* b, float* y) {
  const int row = static_cast<int>(threadIdx.x) / 4, k = static_cast<int>(threadIdx.x) % 4;
  const uint32_t ra[4] = {ToTf32(a[row * 8 + k]), ToTf32(a[(row + 8) * 8 + k]),
                          ToTf32(a[row * 8 + k + 4]), ToTf32(a[(row + 8) * 8 + k + 4])};
  float d[4] = {};
  mma_tf32(d, ra, ToTf32(b[k * 8 + row]), ToTf32(b[(k + 4) * 8 + row]));
  for (int i = 0; i < 4; ++i) y[(row + i / 2 * 8) * 8 + k * 2 + i % 2] = d[i];
}

// y[16, 8] = a[16, 16] b[16, 8], fp16.
__global__ void MultiplyFp16(const f16* a, const f16* b, float* y) {
  const int row = static_cast<int>(threadIdx.x) / 4, k = static_cast<int>(threadIdx.x) % 4 * 2;
  const auto pair = [](f16 low, f16 high) { return low.bits | uint32_t{high.bits} << 16; };
  const auto of_a = [&](int r, int c) { return pair(a[r * 16 + c], a[r * 16 + c + 1]); };
  const auto of_b = [&](int r) { return pair(b[r * 8 + row], b[(r + 1) * 8 + row]); };
  const uint32_t ra[4] = {of_a(row, k), of_a(row + 8, k), of_a(row, k + 8), of_a(row + 8, k + 8)};
  float d[4] = {};
  mma_fp16(d, ra, of_b(k), of_b(k + 8));
  for (int i = 0; i < 4; ++i) y[(row + i / 2 * 8) * 8 + k + i % 2] = d[i];
}

// y[i] = x[i] for i < n and 0 for n <= i < 128: a tail that is copied in part.
__global__ void CopyTail(const float* x, float* y, int n) {
  TESSERA_SHARED(float4[32], tile);
  const int first = static_cast<int>(threadIdx.x) * 4, valid = min(max(n - first, 0), 4);
  cp_async16(&tile[threadIdx.x], valid > 0 ? x + first : x, valid * 4);
  cp_async_commit();
  cp_async_wait<0>();
  reinterpret_cast<float4*>(y)[threadIdx.x] = tile[threadIdx.x];
}

__global__ void DivergentBarrier(int* x) {
  if (threadIdx.x < 40)
    __syncthreads();
  else
    __syncthreads();
  x[threadIdx.x] = 1;
}

__global__ void EarlyReturn(int* x) {
  if (threadIdx.x >= 50) return;
  __syncthreads();
  x[threadIdx.x] = 1;
}

// Half a warp waits for the other half, which waits for the whole block.
__global__ void Deadlock(int* x) {
  if (threadIdx.x % 32 < 16) __syncwarp();
  __syncthreads();
  x[threadIdx.x] = 1;
}

__global__ void PartOfShuffle(int* x) {
  if (threadIdx.x < 16) x[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, x[threadIdx.x], 16);
}

// Writes values[index], or fixed[-index].
__global__ void WritePast(int* x, int index) {
  TESSERA_DYNAMIC_SHARED(int, values);
  TESSERA_SHARED(int[64], fixed);
  values[threadIdx.x] = x[threadIdx.x];
  fixed[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  if (threadIdx.x == 0) (index > 0 ? values : fixed)[index > 0 ? index : -index] = 0;
  __syncthreads();
  x[threadIdx.x] = values[threadIdx.x] + fixed[threadIdx.x];
}

__global__ void ReadUnwritten(float* x) {
  TESSERA_SHARED(float[32], values);
  x[threadIdx.x] = values[threadIdx.x];
}

__global__ void MisalignedCopy(const float* x) {
  TESSERA_SHARED(float[64], tile);
  cp_async16(tile + 1, x);
}

}  // namespace tessera::simt_kernels

#endif  // TESSERA_TESTS_DEVICE_SIMT_KERNELS_H_
