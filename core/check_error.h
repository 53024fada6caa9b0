#ifndef TESSERA_CORE_CHECK_ERROR_H_
#define TESSERA_CORE_CHECK_ERROR_H_

#include <stdexcept>
#include <string>

namespace tessera {

// What a TESSERA_CHECK that fails throws, so that a host program can let go of what it ran and go
// on; whoever catches nothing ends with the message. It is no std::runtime_error: those are
// failures of the world around the program, which a caller may expect.
class CheckError : public std::logic_error {
 public:
  explicit CheckError(const std::string& what) : std::logic_error(what) {}
};

}  // namespace tessera

#endif  // TESSERA_CORE_CHECK_ERROR_H_
