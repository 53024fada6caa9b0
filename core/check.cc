#include "core/check.h"

#include <atomic>
#include <cstdarg>
#include <cstdio>

#include "core/check_error.h"

namespace tessera {
namespace {

std::atomic<CheckHandler> check_handler{nullptr};

}  // namespace

CheckHandler SetCheckHandler(CheckHandler handler) { return check_handler.exchange(handler); }

void CheckFailed(const char* file, int line, const char* condition, const char* format, ...) {
  char values[1024];
  va_list args;
  va_start(args, format);
  std::vsnprintf(values, sizeof values, format, args);
  va_end(args);
  const std::string message = std::string(file) + ":" + std::to_string(line) +
                              ": internal error, '" + condition + "' does not hold: " + values;
  if (const CheckHandler handler = check_handler.load()) handler(message.c_str());
  throw CheckError(message);
}

}  // namespace tessera
