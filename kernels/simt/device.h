#ifndef TESSERA_KERNELS_SIMT_DEVICE_H_
#define TESSERA_KERNELS_SIMT_DEVICE_H_

#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "core/dtype.h"
#include "kernels/simt/executor.h"

// CUDA's own names for a kernel that is compiled for the host. Included by kernels/cuda/device.h
// alone, in whose words the kernels are written.

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

#define threadIdx (::tessera::simt::ThisThread().index)
#define blockIdx (::tessera::simt::ThisBlock().index)
#define blockDim (::tessera::simt::ThisBlock().block_dim)
#define gridDim (::tessera::simt::ThisBlock().grid_dim)

// Shared memory of the block: a variable, and the memory that the launch asked for.
#define TESSERA_SHARED(type, name)                        \
  static const char shared_key_##name = 0;                \
  auto& name = *static_cast<std::type_identity_t<type>*>( \
      ::tessera::simt::SharedVariable(&shared_key_##name, sizeof(std::type_identity_t<type>)))
#define TESSERA_DYNAMIC_SHARED(type, name) \
  type* name = reinterpret_cast<type*>(::tessera::simt::ThisBlock().dynamic_shared)

namespace tessera::simt::internal {
template <class T>
T TakeFrom(uint32_t mask, T v, int lane, const char* what, const Where& where) {
  static_assert(sizeof(T) <= kLaneBytes && std::is_trivially_copyable_v<T>);
  const unsigned char* lanes = WarpCollective(mask, &v, sizeof v, nullptr, what, where);
  if (lane < 0 || lane > 31) return v;  // shuffles up and down keep a lane's own value there
  if ((mask >> lane & 1) == 0) throw Error(std::string(what) + " reads a lane outside its mask");
  T taken;
  std::memcpy(&taken, lanes + lane * kLaneBytes, sizeof taken);
  return taken;
}
}  // namespace tessera::simt::internal

inline void __syncthreads(tessera::simt::Where where = tessera::simt::Where::current()) {
  tessera::simt::BlockBarrier(false, "__syncthreads", where);
}
inline int __syncthreads_or(int vote,
                            tessera::simt::Where where = tessera::simt::Where::current()) {
  return tessera::simt::BlockBarrier(vote != 0, "__syncthreads_or", where) > 0;
}
inline int __syncthreads_count(int vote,
                               tessera::simt::Where where = tessera::simt::Where::current()) {
  return tessera::simt::BlockBarrier(vote != 0, "__syncthreads_count", where);
}
inline void __syncwarp(uint32_t mask = ~0u,
                       tessera::simt::Where where = tessera::simt::Where::current()) {
  tessera::simt::WarpCollective(mask, nullptr, 0, nullptr, "__syncwarp", where);
}
template <class T>
T __shfl_sync(uint32_t mask, T v, int lane,
              tessera::simt::Where where = tessera::simt::Where::current()) {
  return tessera::simt::internal::TakeFrom(mask, v, lane & 31, "__shfl_sync", where);
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T v, int x,
                  tessera::simt::Where where = tessera::simt::Where::current()) {
  return tessera::simt::internal::TakeFrom(mask, v, tessera::simt::ThisThread().lane() ^ x,
                                           "__shfl_xor_sync", where);
}
template <class T>
T __shfl_up_sync(uint32_t mask, T v, int delta,
                 tessera::simt::Where where = tessera::simt::Where::current()) {
  return tessera::simt::internal::TakeFrom(mask, v, tessera::simt::ThisThread().lane() - delta,
                                           "__shfl_up_sync", where);
}
template <class T>
T __shfl_down_sync(uint32_t mask, T v, int delta,
                   tessera::simt::Where where = tessera::simt::Where::current()) {
  return tessera::simt::internal::TakeFrom(mask, v, tessera::simt::ThisThread().lane() + delta,
                                           "__shfl_down_sync", where);
}
inline uint32_t __ballot_sync(uint32_t mask, int vote,
                              tessera::simt::Where where = tessera::simt::Where::current()) {
  using namespace tessera::simt;
  const unsigned char v = vote != 0 ? 1 : 0;
  const unsigned char* lanes = WarpCollective(mask, &v, 1, nullptr, "__ballot_sync", where);
  uint32_t votes = 0;
  for (int i = 0; i < 32; ++i)
    if ((mask >> i & 1) != 0 && lanes[i * kLaneBytes] == 1) votes |= 1u << i;
  return votes;
}
template <class T>
uint32_t __match_any_sync(uint32_t mask, T v,
                          tessera::simt::Where where = tessera::simt::Where::current()) {
  using namespace tessera::simt;
  const unsigned char* lanes =
      WarpCollective(mask, &v, sizeof v, nullptr, "__match_any_sync", where);
  uint32_t same = 0;
  for (int i = 0; i < 32; ++i)
    if ((mask >> i & 1) != 0 && std::memcmp(lanes + i * kLaneBytes, &v, sizeof v) == 0)
      same |= 1u << i;
  return same;
}
template <class T>
T atomicAdd(T* p, T v) {
  return std::atomic_ref<T>(*p).fetch_add(v, std::memory_order_relaxed);
}
inline int __popc(uint32_t x) { return std::popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }

namespace tessera::simt {

// Memory of the device for the launches that follow, until the next call; contents undefined.
inline float* ScratchFloats(int64_t count) {
  static thread_local std::vector<float> scratch;
  scratch.assign(static_cast<size_t>(count), std::bit_cast<float>(~0u));
  return scratch.data();
}

inline void CopyAsync16(void* shared, const void* global, Where where = Where::current()) {
  CopyAsync(shared, global, 16, where);
}
template <int kGroupsLeft>
void CopyAsyncWaitFor() {
  CopyAsyncWait(kGroupsLeft);
}

namespace internal {
inline void LoadMatrix(uint32_t (&r)[4], const void* row, bool transposed, const Where& where) {
  if ((reinterpret_cast<uintptr_t>(row) & 15) != 0)
    throw Error("ldmatrix: the address of a row is not a multiple of 16");
  const unsigned char* lanes = WarpCollective(~0u, &row, sizeof row, nullptr, "ldmatrix", where);
  const int lane = ThisThread().lane();
  for (int i = 0; i < 4; ++i) {
    const auto at = [&](int from, int column) -> uint32_t {
      const uint16_t* p;
      std::memcpy(&p, lanes + (i * 8 + from) * kLaneBytes, sizeof p);
      return p[column];
    };
    const int major = lane / 4, minor = lane % 4 * 2;
    r[i] = transposed ? at(minor, major) | at(minor + 1, major) << 16
                      : at(major, minor) | at(major, minor + 1) << 16;
  }
  // Nobody overwrites a row before all lanes have read it.
  WarpCollective(~0u, nullptr, 0, nullptr, "ldmatrix, end", where);
}
}  // namespace internal

// ldmatrix.x4: lane l names row l % 8 of 8x8 matrix l / 8 of 16-bit elements; it receives elements
// (l / 4, 2 (l % 4)) and the next of each matrix, or of its transpose.
inline void LoadMatrix4(uint32_t (&r)[4], const void* row, Where where = Where::current()) {
  internal::LoadMatrix(r, row, false, where);
}
inline void LoadMatrix4Transposed(uint32_t (&r)[4], const void* row,
                                  Where where = Where::current()) {
  internal::LoadMatrix(r, row, true, where);
}

// mma.sync.m16n8k16: d[16,8] += a[16,16] b[16,8] of bf16, sums in fp32. With g = lane / 4 and
// t = 2 (lane % 4): a holds (g,t) (g+8,t) (g,t+8) (g+8,t+8), each with its right neighbour; b holds
// (t,g) (t+8,g), each with the element below; d holds (g,t) (g,t+1) (g+8,t) (g+8,t+1).
inline void MmaBf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                    Where where = Where::current()) {
  struct Lane {
    float d[4];
    uint32_t a[4], b[2];
  };
  const Lane mine{{d[0], d[1], d[2], d[3]}, {a[0], a[1], a[2], a[3]}, {b0, b1}};
  const auto product = [](unsigned char* lanes, uint32_t) {
    float A[16][16], B[16][8], D[16][8];
    const auto put = [](float& low, float& high, uint32_t pair) {
      low = std::bit_cast<float>(pair << 16);
      high = std::bit_cast<float>(pair & 0xffff0000u);
    };
    for (int l = 0; l < 32; ++l) {
      Lane x;
      std::memcpy(&x, lanes + l * kLaneBytes, sizeof x);
      const int g = l / 4, t = l % 4 * 2;
      put(A[g][t], A[g][t + 1], x.a[0]);
      put(A[g + 8][t], A[g + 8][t + 1], x.a[1]);
      put(A[g][t + 8], A[g][t + 9], x.a[2]);
      put(A[g + 8][t + 8], A[g + 8][t + 9], x.a[3]);
      put(B[t][g], B[t + 1][g], x.b[0]);
      put(B[t + 8][g], B[t + 9][g], x.b[1]);
      for (int i = 0; i < 4; ++i) D[g + i / 2 * 8][t + i % 2] = x.d[i];
    }
    for (int i = 0; i < 16; ++i)
      for (int k = 0; k < 16; ++k)
        for (int j = 0; j < 8; ++j) D[i][j] += A[i][k] * B[k][j];
    for (int l = 0; l < 32; ++l) {
      const int g = l / 4, t = l % 4 * 2;
      const float out[4] = {D[g][t], D[g][t + 1], D[g + 8][t], D[g + 8][t + 1]};
      std::memcpy(lanes + l * kLaneBytes, out, sizeof out);
    }
  };
  const unsigned char* lanes =
      WarpCollective(~0u, &mine, sizeof mine, product, "mma.m16n8k16", where);
  std::memcpy(d, lanes + ThisThread().lane() * kLaneBytes, sizeof d);
}

}  // namespace tessera::simt

#endif  // TESSERA_KERNELS_SIMT_DEVICE_H_
