#include "core/check.h"

#include <cstdarg>
#include <cstdio>

#include "core/check_error.h"

namespace tessera {

void CheckFailed(const char* file, int line, const char* condition, const char* format, ...) {
  char values[1024];
  va_list args;
  va_start(args, format);
  std::vsnprintf(values, sizeof values, format, args);
  va_end(args);
  throw CheckError(std::string(file) + ":" + std::to_string(line) + ": internal error, '" +
                   condition + "' does not hold: " + values);
}

}  // namespace tessera
