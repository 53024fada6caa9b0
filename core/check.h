#ifndef TESSERA_CORE_CHECK_H_
#define TESSERA_CORE_CHECK_H_

// A programmer's mistake stops the program with the values that show it. A person's mistake (input,
// config, file) is an absl::Status instead, and never comes this way.

namespace tessera {
// What a host program does where a TESSERA_CHECK fails, with the whole message: it may log, throw
// an exception of its own or end the process. Where it returns, CheckError is thrown
// (core/check_error.h), as it is where there is none. Of the whole process, and called by whichever
// thread failed. Returns the one before; null: none.
using CheckHandler = void (*)(const char* message);
CheckHandler SetCheckHandler(CheckHandler handler);

[[noreturn]] void CheckFailed(const char* file, int line, const char* condition, const char* format,
                              ...) __attribute__((format(printf, 4, 5)));
}  // namespace tessera

#define TESSERA_CHECK(condition, ...)                                      \
  do {                                                                     \
    if (!(condition)) [[unlikely]]                                         \
      ::tessera::CheckFailed(__FILE__, __LINE__, #condition, __VA_ARGS__); \
  } while (false)

#endif  // TESSERA_CORE_CHECK_H_
