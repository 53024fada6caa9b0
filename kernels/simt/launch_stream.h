#ifndef TESSERA_KERNELS_SIMT_LAUNCH_STREAM_H_
#define TESSERA_KERNELS_SIMT_LAUNCH_STREAM_H_

#include <cstdint>
#include <functional>

// Where launches go instead of running at once: to something that does them later, in their order,
// as a GPU's stream does.

namespace tessera::simt {

class Stream {
 public:
  virtual ~Stream() = default;
  virtual void Enqueue(std::function<void()> launch) = 0;
  // What ScratchFloats of kernels/cuda/device.h gives.
  virtual float* Scratch(int64_t count) = 0;
};

// Null: launches run at once.
inline Stream*& LaunchStream() {
  static Stream* stream = nullptr;
  return stream;
}

}  // namespace tessera::simt

#endif  // TESSERA_KERNELS_SIMT_LAUNCH_STREAM_H_
