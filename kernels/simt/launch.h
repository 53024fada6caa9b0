#ifndef TESSERA_KERNELS_SIMT_LAUNCH_H_
#define TESSERA_KERNELS_SIMT_LAUNCH_H_

#include <cstdint>
#include <functional>

// How kernels are launched on the host, for tests to choose.

namespace tessera::simt {

// Where launches go instead of running at once: to something that does them later, in their order,
// as a GPU's stream does.
class Stream {
 public:
  virtual ~Stream() = default;
  virtual void Enqueue(std::function<void()> launch) = 0;
  // What a Scratch of kernels/cuda/device.h holds, from its making to its end.
  virtual float* TakeScratch(int64_t count) = 0;
  virtual void GiveScratchBack(float* floats, int64_t count) = 0;
};

// Null: launches run at once.
inline Stream*& LaunchStream() {
  static Stream* stream = nullptr;
  return stream;
}

// Whether the first block of a grid runs and no other: of grids that are too large to run whole.
inline bool& FirstBlockAlone() {
  static bool on = false;
  return on;
}

}  // namespace tessera::simt

#endif  // TESSERA_KERNELS_SIMT_LAUNCH_H_
