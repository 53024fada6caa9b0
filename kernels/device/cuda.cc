#include "kernels/device/cuda.h"

#include <dlfcn.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/check.h"
#include "core/engine.h"
#include "core/status.h"

namespace tessera {
namespace {

constexpr char kLibrary[] = "libtessera_cuda.so";

// The library has one GPU, with one stream, and so serves one engine at a time.
std::atomic<bool> taken = false;

// Beside the program, as in a build; where an installation puts it; or where the environment says.
std::vector<std::filesystem::path> Places() {
  namespace fs = std::filesystem;
  if (const char* named = std::getenv("TESSERA_CUDA_LIBRARY")) return {named};
  std::error_code none;
  const fs::path folder = fs::read_symlink("/proc/self/exe", none).parent_path();
  return {folder / kLibrary, folder.parent_path() / TESSERA_LIBRARY_FOLDER / kLibrary};
}

absl::StatusOr<CudaDevice*> Load() {
  const std::vector<std::filesystem::path> places = Places();
  for (const auto& path : places) {
    std::error_code none;
    if (!std::filesystem::exists(path, none)) continue;
    // Asked first, since the library brings hundreds of megabytes of others with it.
    if (path.filename() == kLibrary && dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL) == nullptr)
      return absl::FailedPreconditionError(
          "there is no NVIDIA driver on this machine (no libcuda.so.1)");
    void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr)
      return absl::FailedPreconditionError(
          absl::StrCat("the CUDA kernels do not load: ", dlerror()));
    const auto open =
        reinterpret_cast<decltype(&TesseraCudaDevice)>(dlsym(library, "TesseraCudaDevice"));
    if (open == nullptr)
      return absl::FailedPreconditionError(
          absl::StrCat(path.string(), " is not a library of Tessera's CUDA kernels"));
    std::string error;
    CudaDevice* const opened = open(TESSERA_CUDA_INTERFACE, &error);
    if (opened == nullptr) return absl::FailedPreconditionError(error);
    return opened;
  }
  return absl::NotFoundError(absl::StrCat(
      "this build has no CUDA kernels (no ",
      absl::StrJoin(places, ", no ",
                    [](std::string* out, const auto& p) { out->append(p.string()); }),
      "); they are built where CMake finds an nvcc, and -DTESSERA_CUDA=ON says why it does not"));
}

}  // namespace

absl::Status OpenCuda() {
  std::shared_ptr<CudaDevice>& mine = Engine::Current().cuda;
  if (mine != nullptr) return absl::OkStatus();
  if (taken.exchange(true))
    return absl::FailedPreconditionError(
        "another engine of this process has the GPU; end it first, or work on the CPU");
  const absl::StatusOr<CudaDevice*> device = Load();
  if (!device.ok()) {
    taken = false;
    return device.status();
  }
  mine = std::shared_ptr<CudaDevice>(*device, [](CudaDevice*) { taken = false; });
  return absl::OkStatus();
}

CudaDevice& Cuda() {
  CudaDevice* const device = Engine::Current().cuda.get();
  TESSERA_CHECK(device != nullptr, "no GPU is open");
  return *device;
}

void UseCudaDevice(CudaDevice* other) {
  Engine::Current().cuda = std::shared_ptr<CudaDevice>(other, [](CudaDevice*) {});
}

CudaDevice::Kernel FindCudaKernel(const char* op, const std::type_info& args, size_t bytes) {
  const CudaDevice::Kernel kernel = Cuda().Find(args.name(), bytes);
  if (kernel == nullptr)
    throw CudaError(absl::StrCat("the CUDA kernels have no ", op,
                                 ": they are of another build than the program; build both again"));
  return kernel;
}

}  // namespace tessera
