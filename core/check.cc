#include "core/check.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>

namespace tessera {

void CheckFailed(const char* file, int line, const char* condition, const char* format, ...) {
  std::fprintf(stderr, "%s:%d: internal error, '%s' does not hold: ", file, line, condition);
  va_list args;
  va_start(args, format);
  std::vfprintf(stderr, format, args);
  va_end(args);
  std::fputc('\n', stderr);
  std::abort();
}

}  // namespace tessera
