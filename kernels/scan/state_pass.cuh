#ifndef TESSERA_KERNELS_SCAN_STATE_PASS_CUH_
#define TESSERA_KERNELS_SCAN_STATE_PASS_CUH_

#include "kernels/cuda/grid.h"
#include "kernels/cuda/vector.h"

// From chunk to chunk over the states alone, the one part of a scan that goes in order: every
// element of every state by a thread of its own.

namespace tessera::TESSERA_DEVICE {
namespace {

constexpr int kPassThreads = 256;

enum class Pass { kForward, kBackward };

// Where the pass over states finds them: of unit u (a chunk, or several) of batch row b and head h,
// at base + ((b * per_row + (u + 1) * step - 1) * H + h) * size, but for the last of the row, which
// may stand elsewhere.
struct StateArray {
  float* base;
  int64_t units;    // in base
  int64_t per_row;  // states of a batch row there,
  int64_t step;     // of which every step-th is a unit's
  float* last;      // [B,H,size], of unit `units`; null: nobody wants it
};
// Every state has its place, one after another.
inline StateArray Dense(float* base, int64_t units, float* last) {
  return {base, units, units, 1, last};
}
__device__ __forceinline__ float* StateAt(const StateArray& s, int64_t b, int64_t u, int64_t h,
                                          int64_t H, int64_t size) {
  if (u < s.units) return s.base + ((b * s.per_row + (u + 1) * s.step - 1) * H + h) * size;
  return s.last == nullptr ? nullptr : s.last + (b * H + h) * size;
}

// Forward, what unit u adds is replaced by the state at its end. Backward, what unit u adds to the
// gradient of the state at its start is replaced by the gradient of that at its end. Block (i, h,
// b), thread j: element 256 i + j of the state [rows, size / rows]; whole[b, u, h, rows] are the
// decays. The next few are read before they are needed, since one after another each would wait for
// memory.
template <Pass kPass>
__global__ void __launch_bounds__(kPassThreads)
    PassStatesKernel(StateArray states, const float* whole, int64_t units, int64_t H, int64_t rows,
                     int64_t size, const float* from, float* to, Grad mode) {
  constexpr int kAhead = 8;
  const GridPlace place = PlaceInGrid((size + kPassThreads - 1) / kPassThreads, H);
  const int64_t block = place.x, h = place.y, b = place.z;
  const int64_t i = block * kPassThreads + threadIdx.x;
  if (i >= size) return;
  const int64_t head = (b * H + h) * size + i, row = i / (size / rows);
  float s = from == nullptr ? 0 : from[head];
  for (int64_t n0 = 0; n0 < units; n0 += kAhead) {
    float *at[kAhead], added[kAhead], decay[kAhead];
#pragma unroll
    for (int n = 0; n < kAhead; ++n) {
      at[n] = nullptr;
      if (n0 + n >= units) continue;
      const int64_t u = kPass == Pass::kForward ? n0 + n : units - 1 - n0 - n;
      at[n] = StateAt(states, b, u, h, H, size);
      if (at[n] == nullptr) continue;
      added[n] = at[n][i];
      decay[n] = whole[((b * units + u) * H + h) * rows + row];
    }
#pragma unroll
    for (int n = 0; n < kAhead; ++n) {
      if (at[n] == nullptr) continue;
      const float next = decay[n] * s + added[n];
      at[n][i] = kPass == Pass::kForward ? next : s;
      s = next;
    }
  }
  if (to != nullptr) PutGrad(to + head, s, mode);
}

inline void PassStates(Pass pass, const StateArray& states, const float* whole, int64_t B,
                       int64_t units, int64_t H, int64_t rows, int64_t size, const float* from,
                       float* to, Grad mode) {
  Launch(
      pass == Pass::kForward ? PassStatesKernel<Pass::kForward> : PassStatesKernel<Pass::kBackward>,
      FoldedGrid(CeilDivide(size, kPassThreads), H, B), dim3{kPassThreads}, 0, states, whole, units,
      H, rows, size, from, to, mode);
}

}  // namespace
}  // namespace tessera::TESSERA_DEVICE

#endif  // TESSERA_KERNELS_SCAN_STATE_PASS_CUH_
