#ifndef TESSERA_KERNELS_SIMT_DEVICE_H_
#define TESSERA_KERNELS_SIMT_DEVICE_H_

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>
#include <numeric>
#include <source_location>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/check.h"
#include "core/dtype.h"
#include "kernels/device/wgmma.h"
#include "kernels/product/matmul.h"
#include "kernels/simt/block.h"
#include "kernels/simt/hopper.h"
#include "kernels/simt/launch.h"
#include "kernels/simt/vector_types.h"
#include "kernels/simt/warp.h"

// The host's half of kernels/cuda/device.h, where what is not CUDA's own is described: the names
// that a kernel sees, run by the threads of block.h.

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

#define TESSERA_SHARED(type, name)                                              \
  static char tessera_key_of_##name;                                            \
  std::type_identity_t<type>& name = *static_cast<std::type_identity_t<type>*>( \
      ::tessera::simt::device::SharedOf<type>(&tessera_key_of_##name, #name))
#define TESSERA_DYNAMIC_SHARED(type, name) \
  type* name = static_cast<type*>(::tessera::simt::DynamicShared())

// Apart from the executor's own names, since kernels see all of these as their own.
namespace tessera::simt::device {

using Site = std::source_location;

template <class T>
void* SharedOf(const void* key, const char* name) {
  static_assert(std::is_trivially_default_constructible_v<T> && std::is_trivially_destructible_v<T>,
                "CUDA constructs nothing in shared memory");
  return SharedVariable(key, name, sizeof(T), std::max<size_t>(16, alignof(T)));
}

inline constexpr int warpSize = 32;

inline void __syncthreads(Site at = Site::current()) {
  Block::Running().Barrier(false, {"__syncthreads", at});
}
inline int __syncthreads_count(int vote, Site at = Site::current()) {
  return Block::Running().Barrier(vote != 0, {"__syncthreads_count", at});
}
inline int __syncthreads_or(int vote, Site at = Site::current()) {
  return Block::Running().Barrier(vote != 0, {"__syncthreads_or", at}) > 0 ? 1 : 0;
}
inline int __syncthreads_and(int vote, Site at = Site::current()) {
  return Block::Running().Barrier(vote == 0, {"__syncthreads_and", at}) == 0 ? 1 : 0;
}
inline void __syncwarp(uint32_t mask = ~0u, Site at = Site::current()) { SyncWarp(mask, at); }

// A lane that reads past its segment of `width` lanes keeps its own value.
template <class T>
T ShuffleFrom(uint32_t mask, T value, int source, const Call& call) {
  static_assert(sizeof(T) <= 8 && std::is_arithmetic_v<T>, "CUDA shuffles 4 or 8 bytes");
  Shuffle(mask, call, &value, sizeof value, source);
  return value;
}
template <class T>
T __shfl_sync(uint32_t mask, T value, int source, int width = 32, Site at = Site::current()) {
  const int first = Lane() & ~(width - 1);
  return ShuffleFrom(mask, value, first + (source & (width - 1)), {"__shfl_sync", at});
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int flip, int width = 32, Site at = Site::current()) {
  const int source = Lane() ^ flip, end = (Lane() & ~(width - 1)) + width;
  return ShuffleFrom(mask, value, source < end ? source : Lane(), {"__shfl_xor_sync", at});
}
template <class T>
T __shfl_up_sync(uint32_t mask, T value, unsigned by, int width = 32, Site at = Site::current()) {
  const int source = Lane() - static_cast<int>(by), first = Lane() & ~(width - 1);
  return ShuffleFrom(mask, value, source >= first ? source : Lane(), {"__shfl_up_sync", at});
}
template <class T>
T __shfl_down_sync(uint32_t mask, T value, unsigned by, int width = 32, Site at = Site::current()) {
  const int source = Lane() + static_cast<int>(by), end = (Lane() & ~(width - 1)) + width;
  return ShuffleFrom(mask, value, source < end ? source : Lane(), {"__shfl_down_sync", at});
}

inline uint32_t __ballot_sync(uint32_t mask, int vote, Site at = Site::current()) {
  return Ballot(mask, {"__ballot_sync", at}, vote != 0);
}
inline int __any_sync(uint32_t mask, int vote, Site at = Site::current()) {
  return Ballot(mask, {"__any_sync", at}, vote != 0) != 0 ? 1 : 0;
}
inline int __all_sync(uint32_t mask, int vote, Site at = Site::current()) {
  return Ballot(mask, {"__all_sync", at}, vote == 0) == 0 ? 1 : 0;
}
template <class T>
uint32_t __match_any_sync(uint32_t mask, T value, Site at = Site::current()) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  return MatchAny(mask, {"__match_any_sync", at}, &value, sizeof value);
}
template <class T>
uint32_t __match_all_sync(uint32_t mask, T value, int* all, Site at = Site::current()) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  const uint32_t equal = MatchAny(mask, {"__match_all_sync", at}, &value, sizeof value);
  const uint32_t named = mask & Block::Running().AllLanes(Block::Running().self().warp);
  *all = equal == named ? 1 : 0;
  return *all != 0 ? equal : 0;
}

#define TESSERA_REDUCE_SYNC(name, reduction)                       \
  template <class T>                                               \
  T name(uint32_t mask, T value, Site at = Site::current()) {      \
    return Reduce(mask, {#name, at}, value, Reduction::reduction); \
  }
TESSERA_REDUCE_SYNC(__reduce_add_sync, kAdd)
TESSERA_REDUCE_SYNC(__reduce_min_sync, kMin)
TESSERA_REDUCE_SYNC(__reduce_max_sync, kMax)
TESSERA_REDUCE_SYNC(__reduce_and_sync, kAnd)
TESSERA_REDUCE_SYNC(__reduce_or_sync, kOr)
TESSERA_REDUCE_SYNC(__reduce_xor_sync, kXor)
#undef TESSERA_REDUCE_SYNC

// Relaxed, as CUDA's are; each returns the value before.
template <class T, class F>
T AtomicUpdate(T* p, F&& f) {
  std::atomic_ref<T> shared(*p);
  T old = shared.load(std::memory_order_relaxed);
  while (!shared.compare_exchange_weak(old, f(old), std::memory_order_relaxed)) {
  }
  return old;
}
template <class T>
T atomicAdd(T* p, std::type_identity_t<T> v) {
  return std::atomic_ref<T>(*p).fetch_add(v, std::memory_order_relaxed);
}
template <class T>
T atomicSub(T* p, std::type_identity_t<T> v) {
  return std::atomic_ref<T>(*p).fetch_sub(v, std::memory_order_relaxed);
}
template <class T>
T atomicMin(T* p, std::type_identity_t<T> v) {
  static_assert(std::is_integral_v<T>);
  return AtomicUpdate(p, [v](T old) { return std::min(old, v); });
}
template <class T>
T atomicMax(T* p, std::type_identity_t<T> v) {
  static_assert(std::is_integral_v<T>);
  return AtomicUpdate(p, [v](T old) { return std::max(old, v); });
}
template <class T>
T atomicAnd(T* p, std::type_identity_t<T> v) {
  return std::atomic_ref<T>(*p).fetch_and(v, std::memory_order_relaxed);
}
template <class T>
T atomicOr(T* p, std::type_identity_t<T> v) {
  return std::atomic_ref<T>(*p).fetch_or(v, std::memory_order_relaxed);
}
template <class T>
T atomicExch(T* p, std::type_identity_t<T> v) {
  return std::atomic_ref<T>(*p).exchange(v, std::memory_order_relaxed);
}
template <class T>
T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> desired) {
  std::atomic_ref<T>(*p).compare_exchange_strong(expected, desired, std::memory_order_relaxed);
  return expected;
}
inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __threadfence_block() { std::atomic_thread_fence(std::memory_order_seq_cst); }

using std::max;
using std::min;
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline float __saturatef(float x) { return std::isnan(x) ? 0 : std::clamp(x, 0.0f, 1.0f); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
template <class T>
T __ldg(const T* p) {
  return *p;
}

inline float ToFloat(float x) { return x; }
inline float ToFloat(bf16 x) { return static_cast<float>(x); }
inline bf16 ToBf16(float x) { return bf16(x); }
inline uint32_t PackBf16(float low, float high) {
  return bf16(low).bits | static_cast<uint32_t>(bf16(high).bits) << 16;
}
inline uint32_t ToTf32(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
  return finite ? (bits + 0x1000u) & 0xffffe000u : bits;
}

inline float Exp2(float x) { return std::exp2(x); }

// A GPU faults where an address is not a multiple of what is read or written at once.
inline void CheckAligned(const void* p, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(p) % bytes != 0)
    Block::Running().Fail("an access of " + std::to_string(bytes) +
                          " bytes at once to an address that is no multiple of that");
}

inline void cp_async16(void* to, const void* from, int valid_bytes = 16,
                       Site at = Site::current()) {
  IssueCopy(to, from, valid_bytes, 16 - valid_bytes, at);
}
inline void cp_async_commit() { CommitCopies(); }
template <int kInFlight>
void cp_async_wait() {
  WaitCopies(kInFlight);
}
inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, Site at = Site::current()) {
  LoadMatrices(r, row, Layout::kPlain, at);
}
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, Site at = Site::current()) {
  LoadMatrices(r, row, Layout::kTransposed, at);
}
inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                     Site at = Site::current()) {
  MultiplyBf16(d, a, b0, b1, at);
}
inline void mma_fp16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                     Site at = Site::current()) {
  MultiplyFp16(d, a, b0, b1, at);
}
inline void mma_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                     Site at = Site::current()) {
  MultiplyTf32(d, a, b0, b1, at);
}

#define TESSERA_GRID_CONSTANT const
using simt::MakeTensorMap;
using simt::SharedAddress;
using simt::TensorMap;
inline void mbarrier_init(uint64_t* barrier, int arrivals, Site at = Site::current()) {
  InitBarrier(barrier, arrivals, at);
}
inline void fence_mbarrier_init() {}
inline void mbarrier_expect(uint64_t* barrier, int bytes, Site at = Site::current()) {
  Arrive(barrier, bytes, at);
}
inline void mbarrier_arrive(uint64_t* barrier, Site at = Site::current()) {
  Arrive(barrier, 0, at);
}
inline void mbarrier_wait(uint64_t* barrier, uint32_t parity, Site at = Site::current()) {
  WaitBarrier(barrier, parity, at);
}
inline void tma_load(void* to, const TensorMap& map, int column, int row, int group,
                     uint64_t* barrier, Site at = Site::current()) {
  LoadTile(to, map, column, row, group, barrier, at);
}
inline void fence_proxy_async() {}
template <int N>
void wgmma_fence(float (&sums)[N]) {
  FenceSums(sums);
}
template <bool kAByK, bool kBByK>
void wgmma_m64n128k16(float (&d)[64], uint64_t a, uint64_t b, Site at = Site::current()) {
  IssueProduct(d, 128, a, b, kAByK, kBByK, at);
}
inline void wgmma_commit() { CommitProducts(); }
template <int kInFlight, int N>
void wgmma_wait(float (&)[N], Site at = Site::current()) {
  WaitProducts(kInFlight, at);
}
inline bool UsesWgmma(bool preferred) {
  const WgmmaUse use = WgmmaUseOfEnvironment();
  return use == WgmmaUse::kAuto ? preferred : use == WgmmaUse::kAlways;
}

inline bool LibraryProduct(const MatmulArgs&) { return false; }

class Scratch {
 public:
  explicit Scratch(int64_t count) : stream_(LaunchStream()), count_(count) {
    if (stream_ == nullptr) own_.assign(static_cast<size_t>(count), std::bit_cast<float>(~0u));
    floats_ = stream_ == nullptr ? own_.data() : stream_->TakeScratch(count);
  }
  ~Scratch() {
    if (stream_ != nullptr) stream_->GiveScratchBack(floats_, count_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  float* floats() const { return floats_; }

 private:
  Stream* stream_;
  int64_t count_;
  std::vector<float> own_;  // where launches run at once
  float* floats_;
};

inline size_t SortBytes(int64_t) { return 0; }
inline void SortRows(const int32_t* keys, int64_t count, int64_t end, int32_t* sorted,
                     int32_t* rows, void*) {
  const auto work = [=] {
    std::iota(rows, rows + count, 0);
    std::stable_sort(rows, rows + count, [=](int32_t a, int32_t b) { return keys[a] < keys[b]; });
    for (int64_t i = 0; i < count; ++i) {
      sorted[i] = keys[rows[i]];
      TESSERA_CHECK(sorted[i] >= 0 && sorted[i] < end, "key %d of %ld", sorted[i], end);
    }
  };
  if (LaunchStream() != nullptr) return LaunchStream()->Enqueue(work);
  work();
}

// Work is done by the time that Launch returns, unless a stream takes it.
template <class... P, class... A>
void Launch(void (*kernel)(P...), dim3 grid, dim3 block, int64_t shared_bytes, A&&... a) {
  struct Work {
    void (*kernel)(P...);
    std::tuple<std::decay_t<P>...> arguments;
  } work = {kernel, std::tuple<std::decay_t<P>...>(static_cast<P>(std::forward<A>(a))...)};
  auto run = [=]() mutable {
    RunGrid(
        grid, block, shared_bytes,
        [](void* p) {
          const Work& w = *static_cast<const Work*>(p);
          std::apply(w.kernel, w.arguments);
        },
        &work);
  };
  if (LaunchStream() != nullptr) return LaunchStream()->Enqueue(run);
  run();
}

}  // namespace tessera::simt::device

#endif  // TESSERA_KERNELS_SIMT_DEVICE_H_
