#ifndef TESSERA_KERNELS_CUDA_STATE_PASS_H_
#define TESSERA_KERNELS_CUDA_STATE_PASS_H_

#include "kernels/cuda/block_product.h"

// From chunk to chunk over the states alone, the one part of a scan that goes in order: every
// element of every state by a thread of its own.

namespace tessera::TESSERA_DEVICE {
namespace {

enum class Pass { kForward, kBackward };

// Where the pass over states finds them: of chunk c of batch row b and head h, at
// base + ((b * per_row + c) * H + h) * size, but for the last chunk, which may stand elsewhere.
struct StateArray {
  float* base;
  int64_t per_row;
  float* last;  // [B,H,size], of chunk `per_row`; null: nobody wants it
};
__device__ __forceinline__ float* StateAt(const StateArray& s, int64_t b, int64_t c, int64_t h,
                                          int64_t H, int64_t size) {
  if (c < s.per_row) return s.base + ((b * s.per_row + c) * H + h) * size;
  return s.last == nullptr ? nullptr : s.last + (b * H + h) * size;
}

// Forward, what chunk c adds is replaced by the state at its end. Backward, what chunk c adds to
// the gradient of the state at its start is replaced by the gradient of that at its end. Block (i,
// h, b), thread j: element 256 i + j of the state [rows, size / rows]; whole[b, c, h, rows] are the
// decays.
template <Pass kPass>
__global__ void __launch_bounds__(kScanThreads)
    PassStatesKernel(StateArray states, const float* whole, int64_t chunks, int64_t H, int64_t rows,
                     int64_t size, const float* from, float* to, Grad mode) {
  const int64_t i = int64_t{blockIdx.x} * kScanThreads + threadIdx.x, h = blockIdx.y,
                b = blockIdx.z;
  if (i >= size) return;
  const int64_t head = (b * H + h) * size + i, row = i / (size / rows);
  float s = from == nullptr ? 0 : from[head];
  for (int64_t n = 0; n < chunks; ++n) {
    const int64_t c = kPass == Pass::kForward ? n : chunks - 1 - n;
    float* at = StateAt(states, b, c, h, H, size);
    if (at == nullptr) continue;
    const float next = whole[((b * chunks + c) * H + h) * rows + row] * s + at[i];
    at[i] = kPass == Pass::kForward ? next : s;
    s = next;
  }
  if (to != nullptr) PutGrad(to + head, s, mode);
}

inline void PassStates(Pass pass, const StateArray& states, const float* whole, int64_t B,
                       int64_t chunks, int64_t H, int64_t rows, int64_t size, const float* from,
                       float* to, Grad mode) {
  const dim3 grid{static_cast<unsigned>(CeilDivide(size, kScanThreads)), static_cast<unsigned>(H),
                  static_cast<unsigned>(B)};
  Launch(
      pass == Pass::kForward ? PassStatesKernel<Pass::kForward> : PassStatesKernel<Pass::kBackward>,
      grid, dim3{kScanThreads}, 0, states, whole, chunks, H, rows, size, from, to, mode);
}

}  // namespace
}  // namespace tessera::TESSERA_DEVICE

#endif  // TESSERA_KERNELS_CUDA_STATE_PASS_H_
