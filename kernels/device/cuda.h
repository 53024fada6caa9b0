#ifndef TESSERA_KERNELS_DEVICE_CUDA_H_
#define TESSERA_KERNELS_DEVICE_CUDA_H_

#include <string>
#include <typeinfo>

#include "absl/status/status.h"
#include "kernels/device/cuda_device.h"
#include "kernels/view.h"

// The GPU of the calling thread's engine (core/engine.h), and the call of a kernel on it.

namespace tessera {

// Finds, loads and opens the GPU; at once if it is open. What is missing otherwise: the library, a
// driver, a new enough one, a device, or one that no other engine has.
absl::Status OpenCuda();
// The open one.
CudaDevice& Cuda();
// Puts another in its place, which outlives its use: for tests.
void UseCudaDevice(CudaDevice* device);

CudaDevice::Kernel FindCudaKernel(const char* op, const std::type_info& args, size_t bytes);

// " x[2,64,256] y[2,16,256]": the tensors of a list that are present (kernels/view.h).
struct ShapesOfTensors {
  std::string text;
  template <class V>
  void Add(const char* name, const V& view, Dims dims) {
    if (!view) return;
    text += std::string(" ") + name;
    char before = '[';
    for (const int64_t size : dims) {
      text += before + std::to_string(size);
      before = ',';
    }
    text += ']';
  }
  template <class V>
  void In(const char* name, const V& view, Dims dims, unsigned = 0) {
    Add(name, view, dims);
  }
  template <class V>
  void Index(const char* name, const V& view, Dims dims, unsigned = 0) {
    Add(name, view, dims);
  }
  template <class V>
  void Out(const char* name, const V& view, Dims dims, unsigned = 0) {
    Add(name, view, dims);
  }
  template <class V>
  void Kept(const char*, const V&, Dims) {}
  template <class V>
  void Workspace(const char*, const V&, Dims) {}
  template <class V>
  void GradWorkspace(const char*, const V&, Dims) {}
};

// " M=256 N=1024 K=256": the sizes among an op's arguments, for a message.
template <class Args>
std::string SizesOf(const Args& args) {
  std::string text;
#define TESSERA_SIZE(name)                                       \
  if constexpr (requires { text += std::to_string(args.name); }) \
    text += " " #name "=" + std::to_string(args.name);
  TESSERA_SIZE(B)
  TESSERA_SIZE(T)
  TESSERA_SIZE(R)
  TESSERA_SIZE(rows)
  TESSERA_SIZE(M)
  TESSERA_SIZE(H)
  TESSERA_SIZE(Hkv)
  TESSERA_SIZE(G)
  TESSERA_SIZE(E)
  TESSERA_SIZE(N)
  TESSERA_SIZE(P)
  TESSERA_SIZE(K)
  TESSERA_SIZE(V)
  TESSERA_SIZE(D)
  TESSERA_SIZE(C)
  TESSERA_SIZE(L)
  TESSERA_SIZE(count)
#undef TESSERA_SIZE
  if constexpr (requires(Args a, ShapesOfTensors f) { a.Tensors(f); }) {
    ShapesOfTensors shapes;
    Args list = args;
    list.Tensors(shapes);
    return shapes.text;
  }
  if constexpr (requires { args.forward; }) text += SizesOf(args.forward);
  return text;
}

template <class Args>
void RunOnCuda(const Args& args) {
  static const CudaDevice::Kernel kernel = FindCudaKernel(Args::kName, typeid(Args), sizeof(Args));
  try {
    kernel(&args);
  } catch (const CudaError& e) {
    throw CudaError(std::string(Args::kName) + SizesOf(args) + ": " + e.what());
  }
}

}  // namespace tessera

#endif  // TESSERA_KERNELS_DEVICE_CUDA_H_
