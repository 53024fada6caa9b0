#include <dlfcn.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "kernels/device/cuda_device.h"
#include "tests/program/shell.h"
#include "tests/temporary_folder.h"

// The number by which a program and its library of CUDA kernels know each other.

namespace tessera {
namespace {

namespace fs = std::filesystem;
const std::string kTree = TESSERA_SOURCE_DIR;

std::string InterfaceOf(const std::string& tree) {
  return testing::Shell("cmake -DTREE=" + tree + " -P " + kTree +
                        "/kernels/device/interface.cmake 2>&1")
      .output;
}

std::string TextOf(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

TEST(CudaInterface, IsAnotherWhereFieldsChangePlaces) {
  TemporaryFolder folder;
  for (const char* room : {"kernels", "core"})
    for (const auto& entry : fs::recursive_directory_iterator(kTree + "/" + room)) {
      if (entry.path().extension() != ".h") continue;
      const fs::path to = folder.path(fs::relative(entry.path(), kTree).string());
      fs::create_directories(to.parent_path());
      fs::copy_file(entry.path(), to);
    }
  const std::string before = InterfaceOf(folder.path(""));
  EXPECT_EQ(before, InterfaceOf(kTree));
  EXPECT_EQ(before.size(), std::string("0x0123456789abcdef\n").size()) << before;
  // Two fields of one type: neither the name nor the size of the struct tells.
  const auto exchange = [&](const std::string& header, const std::string& a, const std::string& b) {
    std::string text = TextOf(folder.path(header));
    const size_t first = text.find(a), second = text.find(b);
    ASSERT_NE(first, std::string::npos) << header;
    ASSERT_NE(second, std::string::npos) << header;
    ASSERT_LT(first, second);
    text.replace(second, b.size(), a).replace(first, a.size(), b);
    std::ofstream(folder.path(header)) << text;
  };
  exchange("kernels/pointwise/copy.h", "int64_t x_stride;", "int64_t y_stride;");
  const std::string fields = InterfaceOf(folder.path(""));
  EXPECT_NE(fields, before);
  exchange("kernels/device/cuda_device.h", "virtual int64_t Mark() = 0;",
           "virtual void Wait(int64_t mark) = 0;");
  const std::string functions = InterfaceOf(folder.path(""));
  EXPECT_NE(functions, fields);
  exchange("core/dtype.h", "kF32", "kBF16");
  EXPECT_NE(InterfaceOf(folder.path("")), functions);
}

TEST(CudaInterface, ALibraryOfAnotherBuildIsRefused) {
  void* const library = dlopen(TESSERA_BINARY_DIR "/libtessera_host_gpu.so", RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(library, nullptr) << dlerror();
  const auto open =
      reinterpret_cast<decltype(&TesseraCudaDevice)>(dlsym(library, "TesseraCudaDevice"));
  ASSERT_NE(open, nullptr);
  std::string error;
  EXPECT_EQ(open(TESSERA_CUDA_INTERFACE ^ 1, &error), nullptr);
  EXPECT_EQ(error, "of another build");
}

}  // namespace
}  // namespace tessera
