#ifndef TESSERA_KERNELS_SIMT_ERROR_H_
#define TESSERA_KERNELS_SIMT_ERROR_H_

#include <source_location>
#include <stdexcept>
#include <string>

namespace tessera::simt {

// A kernel did what is undefined on a GPU, or can never end. Launch throws it after the block's
// threads were unwound. Not a TESSERA_CHECK, so that a test can run a broken kernel and go on.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A call in a kernel that its thread may have to wait in.
struct Call {
  const char* name;
  std::source_location at;
  bool operator==(const Call& other) const;
};
std::string Describe(const Call& call);  // "__syncthreads (kernels/x.cu:12)"

}  // namespace tessera::simt

#endif  // TESSERA_KERNELS_SIMT_ERROR_H_
